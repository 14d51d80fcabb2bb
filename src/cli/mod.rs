//! The command line program: arguments, progress, log lines, the summary, errors and exit codes.
//!
//! Only this module prints.
//!
//! - `args` and `options` define the arguments for clap; `name`, `platform` and `duration` parse
//!   single values. `command` checks all of them and makes an [`Invocation`].
//! - `run` runs an invocation, and stops it at a signal. `done` has the results of the commands.
//! - `output` prints events, reports and errors on standard error. `result` prints the result on
//!   standard output.
//! - `help` is the text of `--help`. `manual` makes man pages and completions from it.
//! - [`Code`] maps errors to exit codes. `outcome` holds the report or the error of each image.

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
