//! A checked command line: raw arguments in, [`Invocation`] or [`Usage`] out.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use zeroize::Zeroizing;

use super::args::{Args, Compression, DETAILS, Format, ImageArgs, RegistryArgs};
use super::exit::Code;
use super::output::Verbosity;
use crate::push::{Item, PushOptions};
use crate::registry::{self, auth};
use crate::reuse::CacheLocation;
use crate::source::{Location, Selection};

/// No password is longer; a token of a cloud's registry has some 2,000 bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

/// What is to be done, everything checked that can be checked before it begins.
#[derive(Debug)]
pub struct Invocation {
    /// What is pushed.
    pub(super) item: Item,
    /// How.
    pub(super) push: PushOptions,
    /// `--json`.
    pub(super) json: bool,
    /// `--digest-file`.
    pub(super) digest_file: Option<std::path::PathBuf>,
    /// `-q`, `-v`.
    pub(super) verbosity: Verbosity,
}

/// A command line that asks for nothing to be done: a wrong one, `--help` or `--version`.
#[derive(Debug)]
pub struct Usage(clap::Error);

impl Invocation {
    /// Reads this process's arguments, and the password where `--password-stdin` is one of them.
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
        check_compression(&args.image_args)?;
        let image = location(&args, stdin_is_terminal)?;
        check_reuse(&args)?;
        if let Some(path) = &args.output.digest_file {
            check_folder(path)?;
        }
        if let Some(path) = &args.registry.auth_file {
            check_auth_file(path)?;
        }
        let mut tags = args.image_args.tags;
        let mut seen = std::collections::HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        if let Some(own) = args.destination.as_ref().and_then(|d| d.tag()) {
            tags.retain(|tag| tag != own);
        }
        Ok(Self {
            item: Item {
                image,
                selection: Selection::default(),
                destination: args.destination,
                tags,
            },
            push: PushOptions {
                format: args.image_args.format.into(),
                compression: args.image_args.compression.into(),
                level: args.image_args.compression_level,
                jobs: args.image_args.jobs.into(),
                dry_run: args.image_args.dry_run,
                reuse_from: args.reuse.reuse_from,
                trust_annotations: false,
                may_run: true,
                fail_fast: false,
                cache: match (args.reuse.no_cache, args.reuse.cache_dir) {
                    (true, _) => None,
                    (false, Some(folder)) => Some(CacheLocation::Folder(folder)),
                    (false, None) => Some(CacheLocation::User),
                },
                registry: registry::Options {
                    show_headers: args.output.verbose > 1,
                    ..registry_options(args.registry, stdin)?
                },
            },
            json: args.output.json,
            digest_file: args.output.digest_file,
            verbosity: match (args.output.quiet, args.output.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, 0) => Verbosity::Normal,
                (false, 1) => Verbosity::Requests,
                (false, _) => Verbosity::Headers,
            },
        })
    }
}

impl Usage {
    fn new(kind: ErrorKind, what: &str, tip: &str) -> Self {
        Self(Args::command().error(kind, format!("{what}\n\n  tip: {tip}")))
    }

    /// Prints it, help on stdout and mistakes on stderr, and says how the process ends.
    pub fn show(&self) -> ExitCode {
        // Whoever closed the pipe has read enough, and there is nowhere to complain about stderr.
        let _ = if self.is_long_help() { long_help().print_help() } else { self.0.print() };
        self.code().into()
    }

    fn code(&self) -> Code {
        if self.0.use_stderr() { Code::Usage } else { Code::Pushed }
    }

    /// Clap lays `--help` out with blank lines between all options; only its ending is taken.
    fn is_long_help(&self) -> bool {
        self.0.kind() == ErrorKind::DisplayHelp && self.0.to_string().contains(LONG_HELP)
    }
}

/// The command whose short help is the long help.
fn long_help() -> clap::Command {
    Args::command().after_help(DETAILS)
}

/// What clap's rendering of `--help` holds, and that of `-h` does not.
const LONG_HELP: &str = "Exit codes:";

impl From<clap::Error> for Usage {
    fn from(error: clap::Error) -> Self {
        Self(error)
    }
}

fn check_compression(args: &ImageArgs) -> Result<(), Usage> {
    if args.format == Format::Docker && args.compression == Compression::Zstd {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--format docker' cannot be used with '--compression zstd': Docker's \
             format has no name for zstd layers",
            "use '--format oci'",
        ));
    }
    let Some(level) = args.compression_level else {
        return Ok(());
    };
    let highest = match args.compression {
        Compression::Gzip => 12,
        Compression::Zstd => 22,
        Compression::None => {
            return Err(Usage::new(
                ErrorKind::ArgumentConflict,
                "the argument '--compression-level' cannot be used with '--compression none'",
                "leave one of them out",
            ));
        }
    };
    if (1..=highest).contains(&level) {
        return Ok(());
    }
    let name = crate::image::Compression::from(args.compression);
    Err(Usage::new(
        ErrorKind::ValueValidation,
        &format!("invalid value '{level}' for '--compression-level <N>'"),
        &format!("with {name}, a level is 1 (fastest) to {highest} (smallest)"),
    ))
}

fn location(args: &Args, stdin_is_terminal: bool) -> Result<Location, Usage> {
    if args.image != Path::new("-") {
        return Ok(Location::Path(args.image.clone()));
    }
    if args.registry.password_stdin {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--password-stdin' cannot be used with the image '-': standard input \
             can be only one of them",
            "push a file, or put the credentials into a file and use '--auth-file'",
        ));
    }
    if stdin_is_terminal {
        return Err(Usage::new(
            ErrorKind::ValueValidation,
            "the image '-' is standard input, which is a terminal",
            "pipe an image into it: docker save app | pushimg - registry.example.com/app",
        ));
    }
    Ok(Location::Stdin)
}

/// Blobs are found, and mounted, within one registry only.
fn check_reuse(args: &Args) -> Result<(), Usage> {
    let Some(destination) = &args.destination else {
        return Ok(());
    };
    let foreign = |other: &&oci_client::Reference| other.registry() != destination.registry();
    match args.reuse.reuse_from.iter().find(foreign) {
        Some(other) => Err(Usage::new(
            ErrorKind::ValueValidation,
            &format!("invalid value '{other}' for '--reuse-from <REF>'"),
            &format!(
                "layers can be reused within a registry only, and the destination is at {}",
                destination.registry()
            ),
        )),
        None => Ok(()),
    }
}

/// That a folder is missing must not come out when the image has been pushed.
fn check_folder(file: &Path) -> Result<(), Usage> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Usage::new(
        ErrorKind::ValueValidation,
        &format!("invalid value '{}' for '--digest-file <PATH>'", file.display()),
        "it must be a file in a folder that exists",
    ))
}

/// That a file of credentials cannot be read must not come out when a registry asks for them, which
/// one that takes anybody never does.
fn check_auth_file(file: &Path) -> Result<(), Usage> {
    let readable = std::fs::metadata(file).and_then(|metadata| match metadata.file_type() {
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        kind if kind.is_file() => std::fs::File::open(file).map(drop),
        // Whoever writes into a pipe would take this for the one reading.
        _ => Ok(()),
    });
    readable.map_err(|error| {
        Usage::new(
            ErrorKind::ValueValidation,
            &format!("invalid value '{}' for '--auth-file <FILE>': {error}", file.display()),
            "it is a file in the format of docker's config.json or podman's auth.json",
        )
    })
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

/// The password on standard input.
fn password(stdin: &mut dyn BufRead) -> Result<auth::Secret, Usage> {
    first_line(stdin).map(|line| auth::Secret::new(line.as_str())).map_err(|what| {
        Usage::new(
            ErrorKind::ValueValidation,
            &format!("the password on standard input {what}"),
            "pipe it in: echo \"$TOKEN\" | pushimg --username NAME --password-stdin ...",
        )
    })
}

/// The first line of `stdin`, without what ends it; or what is wrong with it.
fn first_line(stdin: &mut dyn BufRead) -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(Vec::new());
    stdin
        .take(MAX_PASSWORD + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if line.len() as u64 > MAX_PASSWORD {
        return Err("has no end".into());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err("is empty".into()),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("is not UTF-8".into()),
    }
}

#[cfg(test)]
mod tests;
