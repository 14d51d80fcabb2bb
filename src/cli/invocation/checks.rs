//! Options that have to fit one another, the image, or what is on the disk.

use std::io;
use std::path::Path;

use clap::error::ErrorKind;
use oci_client::Reference;

use crate::cli::args::{Compression, Format, ImageArgs};
use crate::cli::options::{RegistryArgs, ReuseArgs};
use crate::cli::usage::Usage;

/// A level that the method has, and a method that the format has.
pub fn compression(args: &ImageArgs) -> Result<(), Usage> {
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

/// Standard input may be an image, or have the password, and is not waited for at a terminal.
pub fn stdin(
    is_image: bool,
    registry: &RegistryArgs,
    stdin_is_terminal: bool,
) -> Result<(), Usage> {
    password(registry, is_image.then_some("the image '-'"))?;
    if is_image && stdin_is_terminal {
        return Err(Usage::new(
            ErrorKind::ValueValidation,
            "the image '-' is standard input, which is a terminal",
            "pipe an image into it: docker save app | pushimg - registry.example.com/app",
        ));
    }
    Ok(())
}

/// The password may be on standard input where `other` is not.
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

/// Blobs are found, and mounted, within one registry only.
pub fn reuse_from(destinations: &[&Reference], reuse: &ReuseArgs) -> Result<(), Usage> {
    for (destination, other) in
        destinations.iter().flat_map(|d| reuse.reuse_from.iter().map(move |other| (d, other)))
    {
        if other.registry() != destination.registry() {
            return Err(Usage::new(
                ErrorKind::ValueValidation,
                &format!("invalid value '{other}' for '--reuse-from <REF>'"),
                &format!(
                    "layers can be reused within a registry only, and the destination is at {}",
                    destination.registry()
                ),
            ));
        }
    }
    Ok(())
}

/// That a folder is missing must not come out when the image has been pushed.
pub fn digest_file(file: &Path) -> Result<(), Usage> {
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
pub fn auth_file(file: &Path) -> Result<(), Usage> {
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
