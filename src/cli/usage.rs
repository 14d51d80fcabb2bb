//! A command line for which nothing is run: a mistake, `--help` or `--version`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Args;
use super::exit::Code;
use super::name::mask_login;

/// A mistake on the command line, or the requested help or version.
#[derive(Debug)]
pub struct Usage {
    pub(super) error: clap::Error,
    /// The message of a mistake, if clap did not find it itself.
    own: Option<(ErrorKind, String)>,
}

impl Usage {
    /// A mistake: what is wrong, and a tip.
    pub(super) fn new(kind: ErrorKind, what: &str, tip: &str) -> Self {
        Self::own(kind, format!("{what}\n\n  tip: {tip}"))
    }

    /// An invalid value of an argument, in clap's words.
    pub(super) fn invalid(value: &str, argument: &str, why: &str) -> Self {
        let value = mask_login(value).unwrap_or_else(|| value.to_owned());
        let what = format!("invalid value '{value}' for '{argument}': {why}");
        Self::own(ErrorKind::ValueValidation, what)
    }

    fn own(kind: ErrorKind, message: String) -> Self {
        let error = Args::command().override_usage(FORM).error(kind, &message);
        Self { error, own: Some((kind, message)) }
    }

    /// The same mistake, with the usage line of a subcommand.
    pub(super) fn of(self, subcommand: &str) -> Self {
        let mut command = Args::command();
        command.build();
        match (command.find_subcommand_mut(subcommand), self.own) {
            (Some(command), Some((kind, message))) => {
                let error = command.error(kind, &message);
                Self { error, own: Some((kind, message)) }
            }
            (_, own) => Self { own, ..self },
        }
    }

    /// Prints help on stdout, or a mistake on stderr, and returns the exit code.
    pub fn show(&self) -> ExitCode {
        // If the pipe or stderr is closed, nothing more can be done.
        let _ = match self.long_help() {
            Some(mut command) => command.print_help(),
            None => self.error.print(),
        };
        self.code().into()
    }

    pub(super) fn code(&self) -> Code {
        if self.error.use_stderr() { Code::Usage } else { Code::Pushed }
    }

    /// If `--help` was given: the command to print. Its short help is used, with the details added,
    /// because clap's own `--help` puts a blank line between all options.
    pub(super) fn long_help(&self) -> Option<clap::Command> {
        if self.error.kind() != ErrorKind::DisplayHelp {
            return None;
        }
        let text = self.error.to_string();
        let mut command = Args::command();
        command.build();
        let usage = |command: &clap::Command| {
            format!("Usage: {} ", command.get_bin_name().unwrap_or_default())
        };
        let asked = command.get_subcommands().find(|command| text.contains(&usage(command)));
        let asked = asked.unwrap_or(&command).clone();
        let details = asked.get_after_long_help()?.to_string();
        // `-h` does not contain the details, only `--help` does.
        text.contains(details.lines().next()?).then(|| asked.after_help(details))
    }
}

/// The usage line in an error; `--help` shows all forms.
const FORM: &str = "pushimg [OPTIONS] <IMAGE> [DESTINATION]";

impl From<clap::Error> for Usage {
    fn from(mut error: clap::Error) -> Self {
        let has_many_forms = |usage: &ContextValue| usage.to_string().contains('\n');
        if error.get(ContextKind::Usage).is_some_and(has_many_forms) {
            let usage = format!("Usage: {FORM}").into();
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
            if let Some(ContextValue::String(value)) = error.get(kind)
                && let Some(masked) = mask_login(value)
            {
                error.insert(kind, ContextValue::String(masked));
            }
        }
        Self { error, own: None }
    }
}
