//! The command line as a checked value: raw arguments in, [`Invocation`] or [`Usage`] out.
//!
//! - `forms` reads the positional arguments, `image_name` one image of them, `list_file` the file
//!   of `--file`.
//! - `checks` and `conflict` reject options and images that do not fit together.
//! - `settings` turns options into the library's options; `password` reads `--password-stdin`.
//! - `serve` reads what to serve.
//! - `login` reads the login to keep, and asks for the password at the terminal.

mod checks;
mod conflict;
mod forms;
mod image_name;
mod list_file;
mod login;
mod password;
mod serve;
mod settings;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::image::Reference;
use clap::Parser;
use clap::error::ErrorKind;
use clap_complete::Shell;

pub use self::conflict::{SAME_DESTINATION, same_destination};
#[cfg(any(test, feature = "fuzzing"))]
pub use self::list_file::parse as parse_list;
pub use self::serve::listen_address;
use self::settings::{default_options, options, ssh_options, verbosity};
use super::args::{Args, DiffArgs, InspectArgs, PushArgs, Subcommand, TagArgs};
use super::name;
use super::options::{ReuseArgs, SelectionArgs};
use super::output::Verbosity;
use super::serve::UntilPulled;
use super::usage::Usage;
use crate::image::Platform;
use crate::push::{Index, Item, PushOptions};
use crate::serve::Offer;
use crate::source::{Location, Selection};

/// A command and how to run it. Everything that can be checked before it starts has been checked.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub(super) command: Command,
    /// How to push, and how to talk to the registry.
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

/// What to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Push one image.
    Push(Item),
    /// Push several images in one run.
    PushSeveral(Vec<Item>),
    /// Push every image of an archive under its own name.
    PushAll {
        /// The archive.
        archive: Location,
        /// Which image of a multi-platform image.
        platform: Option<Platform>,
    },
    /// Push images for several platforms, and an index that lists them.
    PushIndex(Index),
    /// Print a completion script.
    Completions(Shell),
    /// Write the man pages into this folder.
    Man(PathBuf),
    /// Show what is in an image.
    Inspect {
        /// The image.
        image: AnyImage,
        /// `--against`.
        against: Option<Reference>,
    },
    /// Compare two images.
    Diff {
        /// The old image.
        old: AnyImage,
        /// The new image.
        new: AnyImage,
    },
    /// Check a login, and keep it.
    Login {
        /// The registry.
        registry: String,
        /// The user; `None`: to be asked for at the terminal.
        username: Option<String>,
        /// The password; `None`: likewise.
        password: Option<crate::registry::auth::Secret>,
    },
    /// Forget a login.
    Logout {
        /// The registry.
        registry: String,
    },
    /// Serve images.
    Serve {
        /// The images.
        offers: Vec<Offer>,
        /// Where to listen.
        listen: SocketAddr,
        /// `--until-pulled`.
        until_pulled: UntilPulled,
    },
    /// Point tags to an image in a registry.
    Tag {
        /// The image.
        image: Reference,
        /// The tags.
        tags: Vec<String>,
    },
}

/// An image to look at, here or in a registry.
#[derive(Debug)]
pub(super) enum AnyImage {
    /// A local image.
    Local(Location, Selection),
    /// An image in a registry; of an index, the one for a platform.
    Remote(Reference, Option<Platform>),
}

impl Command {
    /// Whether it may move the tags of several images.
    pub(super) fn pushes_several(&self) -> bool {
        matches!(self, Self::PushSeveral(_) | Self::PushAll { .. })
    }

    /// The images it reads.
    fn images(&self) -> Vec<&Location> {
        match self {
            Self::Push(item) => vec![&item.image],
            Self::PushSeveral(items) => items.iter().map(|item| &item.image).collect(),
            Self::PushAll { archive, .. } => vec![archive],
            Self::PushIndex(index) => index.images.iter().map(|image| &image.image).collect(),
            Self::Inspect { image, .. } => image.location().into_iter().collect(),
            Self::Diff { old, new } => old.location().into_iter().chain(new.location()).collect(),
            Self::Serve { offers, .. } => offers.iter().map(|offer| &offer.image).collect(),
            Self::Tag { .. }
            | Self::Login { .. }
            | Self::Logout { .. }
            | Self::Completions(_)
            | Self::Man(_) => vec![],
        }
    }

    /// The destinations that the command line or the list names.
    fn destinations(&self) -> Vec<&Reference> {
        match self {
            Self::Push(item) => item.destination.iter().collect(),
            Self::PushSeveral(items) => {
                items.iter().filter_map(|item| item.destination.as_ref()).collect()
            }
            Self::PushAll { .. }
            | Self::Diff { .. }
            | Self::Serve { .. }
            | Self::Tag { .. }
            | Self::Login { .. }
            | Self::Logout { .. }
            | Self::Completions(_)
            | Self::Man(_) => vec![],
            Self::PushIndex(index) => vec![&index.destination],
            Self::Inspect { against, .. } => against.iter().collect(),
        }
    }
}

impl std::fmt::Display for AnyImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(location, _) => location.fmt(f),
            Self::Remote(reference, _) => reference.fmt(f),
        }
    }
}

impl AnyImage {
    fn location(&self) -> Option<&Location> {
        match self {
            Self::Local(location, _) => Some(location),
            Self::Remote(..) => None,
        }
    }
}

impl Invocation {
    /// Reads this process's arguments. The password, or the list of images, is read from standard
    /// input if an option asks for that.
    pub fn from_env() -> Result<Self, Usage> {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        // Not locked: a question at the terminal reads from there, too.
        let mut stdin = io::BufReader::new(stdin);
        Self::parse(std::env::args_os(), &mut stdin, is_terminal)
    }

    fn parse(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let args = Args::try_parse_from(arguments)?;
        match args.command {
            Some(Subcommand::Inspect(inspect)) => Self::inspect(*inspect, stdin, stdin_is_terminal),
            Some(Subcommand::Diff(args)) => Self::diff(*args, stdin, stdin_is_terminal),
            Some(Subcommand::Tag(args)) => Self::tag(*args, stdin),
            Some(Subcommand::Serve(args)) => Self::serve(*args),
            Some(Subcommand::Login(args)) => Self::login(*args, stdin, stdin_is_terminal),
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

/// A command that pushes nothing and asks no registry.
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

/// What a push command line asks for. `stdin` holds the list if `--file -` is given.
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
