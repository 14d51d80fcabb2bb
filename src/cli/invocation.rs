//! A checked command line: raw arguments in, [`Invocation`] or [`Usage`] out.

mod checks;
mod password;

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use oci_client::Reference;

use self::password::password;
use super::args::{Args, Command, InspectArgs, PushArgs};
use super::options::{RegistryArgs, ReuseArgs, VerbosityArgs};
use super::output::Verbosity;
use super::task::{self, Task};
use super::usage::Usage;
use crate::push::{DEFAULT_JOBS, PushOptions};
use crate::registry::{self, auth};
use crate::reuse::CacheLocation;
use crate::source::{Location, Selection};

/// What is to be done, everything checked that can be checked before it begins.
#[derive(Debug)]
pub struct Invocation {
    /// What is done.
    pub(super) action: Action,
    /// How images are pushed.
    pub(super) push: PushOptions,
    /// `--json`.
    pub(super) json: bool,
    /// `-q`, `-v`.
    pub(super) verbosity: Verbosity,
}

/// What is done.
#[derive(Debug)]
pub(super) enum Action {
    /// Images are pushed.
    Push {
        /// Which.
        task: Task,
        /// `--digest-file`.
        digest_file: Option<PathBuf>,
    },
    /// An image is looked at.
    Inspect {
        /// Where it is.
        image: Location,
        /// Which, where there are several.
        selection: Selection,
        /// `--against`.
        against: Option<Reference>,
    },
}

impl Action {
    /// Whether more than one tag may move.
    pub(super) fn is_several(&self) -> bool {
        matches!(self, Self::Push { task: Task::Several(_) | Task::All { .. }, .. })
    }
}

impl Invocation {
    /// Reads this process's arguments, and from standard input the password or the list of images
    /// where an option says so.
    pub fn from_env() -> Result<Self, Usage> {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        Self::parse(std::env::args_os(), &mut stdin.lock(), is_terminal)
    }

    fn parse(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let args = Args::try_parse_from(arguments)?;
        match args.command {
            Some(Command::Inspect(inspect)) => Self::inspect(*inspect, stdin, stdin_is_terminal),
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
        if args.image.as_deref().is_some_and(|image| image == "inspect") {
            return Err(Usage::new(
                ErrorKind::ArgumentConflict,
                "the options of 'inspect' come after it",
                "pushimg inspect [OPTIONS] <IMAGE>; to push a file of this name: pushimg ./inspect",
            ));
        }
        let task = task::of(&args, stdin)?;
        checks::stdin(task.reads_stdin(), &args.registry, stdin_is_terminal)?;
        checks::reuse_from(&task.destinations(), &args.reuse)?;
        if let Some(path) = &args.output.digest_file {
            checks::digest_file(path)?;
        }
        let push = PushOptions {
            format: args.image_args.format.into(),
            compression: args.image_args.compression.into(),
            level: args.image_args.compression_level,
            jobs: args.image_args.jobs.into(),
            dry_run: args.image_args.dry_run,
            may_run: !args.selection.no_exec,
            fail_fast: args.several.fail_fast,
            ..options(args.reuse, args.registry, &args.verbosity, stdin)?
        };
        Ok(Self {
            action: Action::Push { task, digest_file: args.output.digest_file },
            push,
            json: args.output.json,
            verbosity: verbosity(&args.verbosity),
        })
    }

    fn inspect(
        args: InspectArgs,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let (image, selection) = task::select(&args.image, &args.selection)?;
        let is_stdin = image == Location::Stdin;
        checks::stdin(is_stdin, &args.registry, stdin_is_terminal)?;
        if is_stdin && args.against.is_some() {
            return Err(Usage::new(
                ErrorKind::ArgumentConflict,
                "the argument '--against <REF>' cannot be used with the image '-'",
                "the image is read twice; put it into a file",
            ));
        }
        checks::reuse_from(&args.against.iter().collect::<Vec<_>>(), &args.reuse)?;
        let push = PushOptions {
            dry_run: true,
            may_run: !args.selection.no_exec,
            ..options(args.reuse, args.registry, &args.verbosity, stdin)?
        };
        Ok(Self {
            action: Action::Inspect { image, selection, against: args.against },
            push,
            json: args.json,
            verbosity: verbosity(&args.verbosity),
        })
    }
}

/// The options that both commands have; the others are the defaults.
fn options(
    reuse: ReuseArgs,
    registry: RegistryArgs,
    verbosity: &VerbosityArgs,
    stdin: &mut dyn BufRead,
) -> Result<PushOptions, Usage> {
    if let Some(path) = &registry.auth_file {
        checks::auth_file(path)?;
    }
    Ok(PushOptions {
        format: None,
        compression: crate::image::Compression::Gzip,
        level: None,
        jobs: DEFAULT_JOBS,
        dry_run: false,
        reuse_from: reuse.reuse_from,
        trust_annotations: reuse.trust_annotations,
        may_run: true,
        fail_fast: false,
        cache: match (reuse.no_cache, reuse.cache_dir) {
            (true, _) => None,
            (false, Some(folder)) => Some(CacheLocation::Folder(folder)),
            (false, None) => Some(CacheLocation::User),
        },
        registry: registry::Options {
            show_headers: verbosity.verbose > 1,
            ..registry_options(registry, stdin)?
        },
    })
}

fn verbosity(args: &VerbosityArgs) -> Verbosity {
    match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Requests,
        (false, _) => Verbosity::Headers,
    }
}

fn registry_options(
    args: RegistryArgs,
    stdin: &mut dyn BufRead,
) -> Result<registry::Options, Usage> {
    let explicit = match args.username {
        Some(name) if name.contains(':') => {
            return Err(Usage::new(
                ErrorKind::ValueValidation,
                "invalid value for '--username <NAME>': a user name has no ':'",
                "give the name alone, and the password on standard input",
            ));
        }
        Some(name) => Some((name, password(stdin)?)),
        None => None,
    };
    Ok(registry::Options {
        plain_http: args.plain_http,
        credentials: auth::Sources {
            explicit,
            auth_file: args.auth_file,
            environment: auth::Environment::capture(),
        },
        retry_for: args.retry_for,
        idle_timeout: args.idle_timeout,
        tls: registry::TlsOptions {
            ca_file: args.ca_file,
            skip_verify: args.insecure_skip_tls_verify,
        },
        ..Default::default()
    })
}

#[cfg(test)]
mod tests;
