//! A command line that asks for nothing to be done: a wrong one, `--help` or `--version`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::args::Args;
use super::exit::Code;
use super::help::{DETAILS, INSPECT_DETAILS};

/// A mistake, or something that was asked for instead of a push.
#[derive(Debug)]
pub struct Usage(pub(super) clap::Error);

impl Usage {
    /// A mistake: what is wrong, and what to do instead.
    pub(super) fn new(kind: ErrorKind, what: &str, tip: &str) -> Self {
        Self(Args::command().error(kind, format!("{what}\n\n  tip: {tip}")))
    }

    /// A value that cannot be what its place asks for, as clap says it.
    pub(super) fn invalid(value: &str, place: &str, why: &str) -> Self {
        let what = format!("invalid value '{value}' for '{place}': {why}");
        Self(Args::command().error(ErrorKind::ValueValidation, what))
    }

    /// Prints it, help on stdout and mistakes on stderr, and says how the process ends.
    pub fn show(&self) -> ExitCode {
        // Whoever closed the pipe has read enough, and there is nowhere to complain about stderr.
        let _ = match self.long_help() {
            Some(mut command) => command.print_help(),
            None => self.0.print(),
        };
        self.code().into()
    }

    pub(super) fn code(&self) -> Code {
        if self.0.use_stderr() { Code::Usage } else { Code::Pushed }
    }

    /// The command whose short help is the long help that was asked for.
    ///
    /// Clap lays `--help` out with blank lines between all options; only its ending is taken.
    pub(super) fn long_help(&self) -> Option<clap::Command> {
        if self.0.kind() != ErrorKind::DisplayHelp {
            return None;
        }
        let text = self.0.to_string();
        let mut command = Args::command();
        command.build();
        if text.contains(LONG_HELP) {
            return Some(command.after_help(DETAILS));
        }
        let inspect = command.find_subcommand_mut("inspect").cloned();
        inspect
            .filter(|_| text.contains(LONG_HELP_OF_INSPECT))
            .map(|inspect| inspect.after_help(INSPECT_DETAILS))
    }
}

/// What clap's rendering of `--help` holds, and that of `-h` does not.
const LONG_HELP: &str = "Exit codes:";
/// The same for `inspect`, which has no exit codes of its own.
const LONG_HELP_OF_INSPECT: &str = "Examples:";

impl From<clap::Error> for Usage {
    fn from(error: clap::Error) -> Self {
        Self(error)
    }
}
