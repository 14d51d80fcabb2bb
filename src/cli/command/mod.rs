//! Turns the raw arguments into a checked [`Invocation`], or into [`Usage`] if they are wrong.
//!
//! - `kind` has the commands.
//! - `forms` reads the positional arguments, `image_name` a single image argument, and `list_file`
//!   the file of `--file`.
//! - `checks` and `conflict` reject options and images that do not fit together.
//! - `settings` converts options into the library's options. `password` reads `--password-stdin`.
//! - `serve` and `login` read the arguments of these commands.

mod checks;
mod conflict;
mod forms;
mod image_name;
mod kind;
mod list_file;
mod login;
mod password;
mod serve;
mod settings;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

pub use self::conflict::{SAME_DESTINATION, same_destination};
pub use self::kind::{AnyImage, Command};
#[cfg(any(test, feature = "fuzzing"))]
pub use self::list_file::parse as parse_list;
use self::settings::{default_options, options, ssh_options, verbosity};
use super::args::{Args, DiffArgs, InspectArgs, PushArgs, Subcommand, TagArgs};
use super::name;
use super::options::{ReuseArgs, SelectionArgs};
use super::output::Verbosity;
use super::usage::Usage;
use crate::push::PushOptions;
use crate::source::Location;

/// A command with its options. Everything that can be checked before it starts has been checked.
#[derive(Debug)]
pub struct Invocation {
    pub(super) command: Command,
    /// How to push, and how to talk to registries.
    pub(super) options: PushOptions,
    /// `--json`.
    pub(super) json: bool,
    /// `--digest-file`.
    pub(super) digest_file: Option<PathBuf>,
    /// `--summary`.
    pub(super) summary: Option<PathBuf>,
    /// `--keep-tag`: the destinations get the tags of the images' own names.
    pub(super) keep_tag: bool,
    /// `-q`, `-v`.
    pub(super) verbosity: Verbosity,
}

/// Adapts arguments that users of other programs type: `help` becomes `--help`, and `push` is an
/// error that explains the right form.
fn as_meant(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Vec<OsString>, Usage> {
    let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let first = arguments.get(1).filter(|first| !Path::new(first).exists());
    if first.is_some_and(|first| first == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    } else if first.is_some_and(|first| first == "push") {
        return Err(Usage::new(
            ErrorKind::InvalidSubcommand,
            "there is no command 'push'",
            "pushing needs no word for it: pushimg IMAGE DESTINATION",
        ));
    }
    Ok(arguments)
}

/// The error for a subcommand after options.
fn misplaced(arguments: &[OsString]) -> Option<Usage> {
    let is_option = |argument: &&OsString| argument.to_string_lossy().starts_with('-');
    let first = arguments.iter().skip(1).find(|argument| !is_option(argument))?;
    arguments.get(1).filter(is_option)?;
    checks::not_a_subcommand(Some(first)).err()
}

impl Invocation {
    /// Reads the arguments of this process. If an option asks for it, also reads the password or
    /// the list of images from standard input.
    pub fn from_env() -> Result<Self, Usage> {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        // Not locked, because a question at the terminal also reads from standard input.
        let mut stdin = io::BufReader::new(stdin);
        Self::parse(std::env::args_os(), &mut stdin, is_terminal)
    }

    fn parse(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let arguments = as_meant(arguments)?;
        let args = Args::try_parse_from(&arguments)
            .map_err(|error| misplaced(&arguments).unwrap_or_else(|| Usage::from(error)))?;
        let of = |name| move |usage: Usage| usage.of(name);
        match args.command {
            Some(Subcommand::Inspect(args)) => {
                Self::inspect(*args, stdin, stdin_is_terminal).map_err(of("inspect"))
            }
            Some(Subcommand::Diff(args)) => {
                Self::diff(*args, stdin, stdin_is_terminal).map_err(of("diff"))
            }
            Some(Subcommand::Tag(args)) => Self::tag(*args, stdin).map_err(of("tag")),
            Some(Subcommand::Serve(args)) => Self::serve(*args).map_err(of("serve")),
            Some(Subcommand::Login(args)) => {
                Self::login(*args, stdin, stdin_is_terminal).map_err(of("login"))
            }
            Some(Subcommand::Logout(args)) => Ok(Self::logout(args)),
            Some(Subcommand::Completions(args)) => Ok(Command::Completions(args.shell).into()),
            Some(Subcommand::Man(args)) => Ok(Command::Man(args.folder).into()),
            None => Self::push(args.push, stdin, stdin_is_terminal),
        }
    }

    fn push(
        args: PushArgs,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        checks::compression(&args.image_args)?;
        let lists_stdin = args.several.file.as_deref() == Some(Path::new("-"));
        checks::password(&args.registry, lists_stdin.then_some("'--file -'"))?;
        checks::not_a_subcommand(args.image.as_deref())?;
        let command = push_command(&args, stdin)?;
        checks::options_fit(&args, &command)?;
        checks::destinations_fit(&args, &command)?;
        checks::command(&command, &args.reuse, &args.registry, stdin_is_terminal)?;
        if args.image_args.keep_tag {
            checks::keep_tag(&command)?;
        }
        let files = [
            ("--digest-file <PATH>", &args.output.digest_file),
            ("--summary <FILE>", &args.output.summary),
        ];
        for (option, path) in files {
            path.as_ref().map_or(Ok(()), |path| checks::output_file(option, path))?;
        }
        let options = PushOptions {
            format: args.image_args.format,
            compression: args.image_args.compression,
            level: args.image_args.compression_level,
            jobs: args.image_args.jobs.into(),
            dry_run: args.image_args.dry_run,
            may_run: !args.selection.no_exec,
            fail_fast: args.several.fail_fast,
            ssh: ssh_options(args.ssh),
            ..options(args.reuse, args.registry, &args.verbosity, stdin)?
        };
        Ok(Self {
            command,
            options,
            json: args.output.json,
            digest_file: args.output.digest_file,
            summary: args.output.summary,
            keep_tag: args.image_args.keep_tag,
            verbosity: verbosity(&args.verbosity),
        })
    }

    fn inspect(
        args: InspectArgs,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let image = forms::any_image(&args.image, &args.selection)?;
        let conflict = match image {
            AnyImage::Local(Location::Stdin, _) => {
                Some(("the image '-'", "the image is read twice; put it into a file"))
            }
            AnyImage::Local(..) => None,
            AnyImage::Remote(..) => {
                Some(("an image in a registry", "compare two images with: pushimg diff OLD NEW"))
            }
        };
        if let (Some((other, tip)), true) = (conflict, args.against.is_some()) {
            let what = format!("the argument '--against <REF>' cannot be used with {other}");
            return Err(Usage::new(ErrorKind::ArgumentConflict, &what, tip));
        }
        let command = Command::Inspect { image, against: args.against };
        checks::command(&command, &args.reuse, &args.registry, stdin_is_terminal)?;
        let options = PushOptions {
            dry_run: true,
            may_run: !args.selection.no_exec,
            ..options(args.reuse, args.registry, &args.verbosity, stdin)?
        };
        let verbosity = verbosity(&args.verbosity);
        Ok(Self { options, json: args.json, verbosity, ..command.into() })
    }
}

impl Invocation {
    fn diff(
        args: DiffArgs,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let selection =
            SelectionArgs { image_name: None, platform: args.platform, no_exec: args.no_exec };
        let old = forms::any_image(&args.old, &selection)?;
        let new = forms::any_image(&args.new, &selection)?;
        conflict::check_stdin(old.location().into_iter().chain(new.location()))?;
        let command = Command::Diff { old, new };
        checks::command(&command, &ReuseArgs::default(), &args.registry, stdin_is_terminal)?;
        let options = PushOptions {
            may_run: !args.no_exec,
            ..options(ReuseArgs::default(), args.registry, &args.verbosity, stdin)?
        };
        let verbosity = verbosity(&args.verbosity);
        Ok(Self { options, json: args.json, verbosity, ..command.into() })
    }

    fn tag(args: TagArgs, stdin: &mut dyn BufRead) -> Result<Self, Usage> {
        let tags = name::other_tags(args.tags, None);
        let command = Command::Tag { image: args.image, tags };
        let options = options(ReuseArgs::default(), args.registry, &args.verbosity, stdin)?;
        let verbosity = verbosity(&args.verbosity);
        Ok(Self { options, json: args.json, verbosity, ..command.into() })
    }
}

/// A command that pushes nothing and contacts no registry.
impl From<Command> for Invocation {
    fn from(command: Command) -> Self {
        Self {
            command,
            options: default_options(),
            json: false,
            digest_file: None,
            summary: None,
            keep_tag: false,
            verbosity: Verbosity::Normal,
        }
    }
}

/// The command of a push command line. With `--file -`, the list is read from `stdin`.
fn push_command(args: &PushArgs, stdin: &mut dyn BufRead) -> Result<Command, Usage> {
    let positional = [&args.image, &args.destination].into_iter().flatten().chain(&args.more);
    let positional: Vec<&OsStr> = positional.map(OsString::as_os_str).collect();
    match (&args.several.file, &args.several.index) {
        (Some(file), _) => forms::listed(args, file, &positional, stdin),
        _ if positional.is_empty() => Err(Usage::new(
            ErrorKind::MissingRequiredArgument,
            "the following required arguments were not provided:\n  <IMAGE>",
            "pushimg result registry.fly.io/app:latest",
        )),
        (None, Some(destination)) => forms::index(args, destination, &positional),
        (None, None) if args.several.all => forms::all(args, &positional),
        (None, None) => forms::images(args, &positional),
    }
}

#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod option_tests;
