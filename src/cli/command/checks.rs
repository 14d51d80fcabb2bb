//! Checks that options fit each other, the command, and the files that they name.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::forms::PAIRS;
use super::kind::Command;
use crate::cli::args::{Args, ImageArgs, PushArgs};
use crate::cli::options::{RegistryArgs, ReuseArgs};
use crate::cli::usage::Usage;
use crate::image::{Compression, Format, is_untagged};
use crate::source::Location;
use crate::ssh::RuntimeName;

/// Checks that the format supports the compression, and the compression the level.
pub fn compression(args: &ImageArgs) -> Result<(), Usage> {
    compression_of(args.format, args.compression, args.compression_level)
}

/// The same check for separate options.
pub fn compression_of(
    format: Option<Format>,
    compression: Compression,
    level: Option<i32>,
) -> Result<(), Usage> {
    if format == Some(Format::Docker) && compression == Compression::Zstd {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--format docker' cannot be used with '--compression zstd': Docker's \
             format has no name for zstd layers",
            "use '--format oci'",
        ));
    }
    let Some(level) = level else {
        return Ok(());
    };
    let Some(highest) = compression.highest_level() else {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--compression-level' cannot be used with '--compression none'",
            "leave one of them out",
        ));
    };
    if (1..=highest).contains(&level) {
        return Ok(());
    }
    Err(Usage::new(
        ErrorKind::ValueValidation,
        &format!("invalid value '{level}' for '--compression-level <N>'"),
        &format!("with {}, a level is 1 (fastest) to {highest} (smallest)", compression),
    ))
}

/// Without this check, `pushimg OPTIONS inspect` would push a file with the name `inspect`.
pub fn not_a_subcommand(image: Option<&OsStr>) -> Result<(), Usage> {
    let args = Args::command();
    let mut names = args.get_subcommands().map(clap::Command::get_name);
    match names.find(|name| image.is_some_and(|image| image == *name)) {
        None => Ok(()),
        Some(name) => Err(Usage::new(
            ErrorKind::ArgumentConflict,
            &format!("the options of '{name}' come after it"),
            &format!("pushimg {name} --help; to push a file of this name: pushimg ./{name}"),
        )),
    }
}

/// Checks options that are only for a single image, or only for several.
pub fn options_fit(args: &PushArgs, command: &Command) -> Result<(), Usage> {
    let conflict = |argument: &str, other: &str, tip: &str| {
        let what = format!("the argument '{argument}' cannot be used with {other}");
        Err(Usage::new(ErrorKind::ArgumentConflict, &what, tip))
    };
    let has_name = args.selection.image_name.is_some();
    match command {
        Command::Push(_) if args.several.fail_fast => {
            conflict("--fail-fast", "a single image", &format!("it is for several: {PAIRS}"))
        }
        Command::PushIndex(_) if has_name => conflict(
            "--image <NAME>",
            "'--index <DESTINATION>'",
            "choose the image with its file: PLATFORM=PATH:NAME",
        ),
        command if !command.pushes_several() => Ok(()),
        _ if !args.image_args.tags.is_empty() => {
            let tip = match (args.several.all, &args.several.file) {
                (true, _) => "each image goes under its own names; leave it out",
                (false, Some(_)) => "each image has its own: \"tags\" in the file",
                (false, None) => "each may have its own: \"tags\" in what '--file' lists",
            };
            conflict("--tag <TAG>", "several images", tip)
        }
        _ if has_name => conflict(
            "--image <NAME>",
            "several images",
            "choose the image with its file: PATH:NAME=DESTINATION",
        ),
        _ if args.output.digest_file.is_some() => conflict(
            "--digest-file <PATH>",
            "several images",
            "standard output has the digests, a line for each image",
        ),
        _ => Ok(()),
    }
}

/// Checks options that are only for registries, or only for machines.
pub fn destinations_fit(args: &PushArgs, command: &Command) -> Result<(), Usage> {
    if args.ssh.remote_namespace.is_some()
        && matches!(args.ssh.runtime, Some(RuntimeName::Docker | RuntimeName::Podman))
    {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--remote-namespace <NAME>' cannot be used with this '--runtime <NAME>'",
            "only containerd has namespaces; leave one of them out",
        ));
    }
    let hosts = command.hosts();
    let has_host = hosts.iter().any(Option::is_some);
    let has_registry = hosts.iter().any(Option::is_none);
    let for_registries = [
        ("--format <FORMAT>", args.image_args.format.is_some()),
        ("--compression-level <N>", args.image_args.compression_level.is_some()),
        ("--reuse-from <REF>", !args.reuse.reuse_from.is_empty()),
        ("--trust-annotations", args.reuse.trust_annotations),
    ];
    let for_hosts = [
        ("--runtime <NAME>", args.ssh.runtime.is_some()),
        ("--remote-sudo", args.ssh.remote_sudo),
        ("--remote-namespace <NAME>", args.ssh.remote_namespace.is_some()),
    ];
    let (useless, other, tip) = match (has_registry, has_host) {
        (false, true) => (&for_registries[..], "'ssh://'", "it is for registries; leave it out"),
        (true, false) => {
            (&for_hosts[..], "a registry", "it is for ssh:// destinations; leave it out")
        }
        _ => return Ok(()),
    };
    match useless.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let what = format!("the argument '{option}' cannot be used with {other}");
            Err(Usage::new(ErrorKind::ArgumentConflict, &what, tip))
        }
    }
}

/// Checks that with `--keep-tag` no destination has a tag, and that the images can be read twice.
pub fn keep_tag(command: &Command) -> Result<(), Usage> {
    let conflict = |other: &str, tip: &str| {
        let what = format!("the argument '--keep-tag' cannot be used with {other}");
        Err(Usage::new(ErrorKind::ArgumentConflict, &what, tip))
    };
    let items = match command {
        Command::Push(item) => std::slice::from_ref(item),
        Command::PushSeveral(items) => items,
        _ => return Ok(()),
    };
    for item in items {
        match &item.destination {
            _ if item.image == Location::Stdin => {
                return conflict("the image '-'", "the image is read twice; put it into a file");
            }
            None => {
                let tip = "without a destination, the image goes to the name that it carries";
                return conflict("no destination", tip);
            }
            Some(destination) if !is_untagged(destination) => {
                let tip = "give the repository alone: HOST/REPOSITORY";
                return conflict("a destination with a tag", tip);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks that standard input is used only once, that no image is read from a terminal, and that
/// layers are reused only within the destination's registry.
pub fn command(
    command: &Command,
    reuse: &ReuseArgs,
    registry: &RegistryArgs,
    stdin_is_terminal: bool,
) -> Result<(), Usage> {
    let reads_stdin = command.images().contains(&&Location::Stdin);
    password(registry, reads_stdin.then_some("the image '-'"))?;
    if reads_stdin && stdin_is_terminal {
        return Err(Usage::new(
            ErrorKind::ValueValidation,
            "the image '-' is standard input, which is a terminal",
            "pipe an image into it: docker save app | pushimg - registry.example.com/app",
        ));
    }
    for destination in command.destinations() {
        let host = destination.registry();
        if let Some(other) = reuse.reuse_from.iter().find(|other| other.registry() != host) {
            return Err(Usage::new(
                ErrorKind::ValueValidation,
                &format!("invalid value '{other}' for '--reuse-from <REF>'"),
                &format!(
                    "layers can be reused within a registry only, and the destination is at {host}"
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that standard input is not needed for both the password and `other`.
pub fn password(registry: &RegistryArgs, other: Option<&str>) -> Result<(), Usage> {
    match other {
        Some(other) if registry.password_stdin => Err(Usage::new(
            ErrorKind::ArgumentConflict,
            &format!(
                "the argument '--password-stdin' cannot be used with {other}: standard input can be \
                 only one of them"
            ),
            "push a file, or put the credentials into a file and use '--auth-file'",
        )),
        _ => Ok(()),
    }
}

/// Checks the file before the push, because afterwards it would be too late.
pub fn output_file(option: &str, file: &Path) -> Result<(), Usage> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Usage::new(
        ErrorKind::ValueValidation,
        &format!("invalid value '{}' for '{option}'", file.display()),
        "it must be a file in a folder that exists",
    ))
}

/// Checks the file before the push, because a registry that asks for no credentials would never
/// show the mistake.
pub fn auth_file(file: &Path) -> Result<(), Usage> {
    let readable = std::fs::metadata(file).and_then(|metadata| match metadata.file_type() {
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        kind if kind.is_file() => std::fs::File::open(file).map(drop),
        // Opening a pipe here would consume its content.
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
