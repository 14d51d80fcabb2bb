//! All that a person sees: arguments, progress, log lines, the summary, errors, exit codes.
//!
//! Command line in, text and an exit code out. Nothing else in the crate prints.
//!
//! - `args` is the command line as clap reads it; [`Invocation`] is what is left of it once
//!   everything was checked.
//! - [`run`] runs an invocation, and stops it at a signal.
//! - [`Code`] says which exit code an error has.
//! - `output` turns events, reports and errors into text.

mod args;
mod digest_file;
mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod invocation;
mod name;
mod output;
mod run;
mod signals;

pub use exit::Code;
pub use invocation::{Invocation, Usage};
pub use run::{cannot_start, run};
