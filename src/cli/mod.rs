//! All that a person sees: arguments, progress, log lines, the summary, errors, exit codes.
//!
//! Command line in, text and an exit code out. Nothing else in the crate prints.
//!
//! - `args` is the command line as clap reads it, `options` what its commands have in common;
//!   [`Invocation`] is what is left of it once everything was checked, `task` the part of it that
//!   says what is pushed.
//! - [`run`] runs an invocation, and stops it at a signal.
//! - [`Code`] says which exit code an error has; `outcome` is what came of each of several images.
//! - `output` turns events, reports and errors into text on standard error, `result` what came of
//!   it into text on standard output.

mod args;
mod digest_file;
mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod help;
mod invocation;
mod name;
mod options;
mod outcome;
mod output;
mod platform;
mod result;
mod run;
mod signals;
mod task;
mod usage;

pub use exit::Code;
pub use invocation::Invocation;
pub use run::{cannot_start, run};
pub use usage::Usage;
