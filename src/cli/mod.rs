//! The command line program: arguments, progress, log lines, the summary, errors, exit codes.
//!
//! Arguments come in; text and an exit code go out. Nothing else in the crate prints.
//!
//! - `args` and `options` are the arguments as clap reads them; `name`, `platform` and `duration`
//!   read single values. `command` checks them all: the result is an [`Invocation`].
//! - `run` runs an invocation, and stops it at a signal. `done` is what a command gives.
//! - `output` turns events, reports and errors into text on standard error. `result` prints the
//!   result on standard output.
//! - `help` is the text of `--help`; `manual` makes man pages and completions from it.
//! - [`Code`] maps errors to exit codes; `outcome` holds the report or the error of each image.

mod args;
mod command;
mod digest_file;
mod done;
mod duration;
mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod help;
mod manual;
mod name;
mod options;
mod outcome;
mod output;
mod platform;
mod prompt;
mod result;
mod run;
mod serve;
mod signals;
mod usage;

pub use command::Invocation;
pub use exit::Code;
pub use run::{cannot_start, prepare, run};
pub use usage::Usage;
