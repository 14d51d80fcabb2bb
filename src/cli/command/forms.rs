//! The forms of a push command line, one function for each. Each turns the positional arguments
//! into a [`Command`].

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufRead;
use std::path::Path;

use clap::error::ErrorKind;

use super::conflict::{SAME_DESTINATION, check_stdin, same_destination, stdin_twice};
use super::kind::{AnyImage, Command};
use super::{image_name, list_file};
use crate::cli::args::PushArgs;
use crate::cli::name::PushTarget;
use crate::cli::options::SelectionArgs;
use crate::cli::usage::Usage;
use crate::cli::{name, platform};
use crate::image::Reference;
use crate::push::{Index, IndexItem, Item};
use crate::source::{Location, Selection, printable};

/// The command line for several images, for messages.
pub const PAIRS: &str = "pushimg IMAGE=DESTINATION IMAGE=DESTINATION ...";

/// Paths on the command line are relative to the current folder.
const HERE: &str = "";

/// `IMAGE [DESTINATION]`, or several `IMAGE=DESTINATION`. A single pair means the same as `IMAGE
/// DESTINATION`.
pub fn images(args: &PushArgs, given: &[&OsStr]) -> Result<Command, Usage> {
    let pairs: Vec<_> = given.iter().map(|text| image_name::split_last(text)).collect();
    match (given, pairs.as_slice()) {
        ([_], [Some((image, to))]) => item(args, image, Some(to)).map(Command::Push),
        ([image], _) => item(args, image, None).map(Command::Push),
        ([image, to], [None, None]) => item(args, image, Some(to)).map(Command::Push),
        _ => {
            if let Some(position) = unexpected(&pairs) {
                let text = given[position].to_string_lossy();
                let text = name::mask_login(&text).unwrap_or_else(|| text.into_owned());
                return Err(Usage::new(
                    ErrorKind::UnknownArgument,
                    &format!("unexpected argument '{text}'"),
                    &format!("for one image: pushimg IMAGE [DESTINATION]; for several: {PAIRS}"),
                ));
            }
            let items = pairs.into_iter().flatten().map(|(image, to)| item(args, image, Some(to)));
            several(items.collect::<Result<_, _>>()?)
        }
    }
}

/// The position of the first argument that does not have the form of the first one. If no argument
/// is a pair, it is the position of the third one.
fn unexpected<T>(pairs: &[Option<T>]) -> Option<usize> {
    match pairs.first() {
        Some(Some(_)) => pairs.iter().position(Option::is_none),
        _ => pairs.iter().position(Option::is_some).or(Some(2)),
    }
}

/// `--file`.
pub fn listed(
    args: &PushArgs,
    file: &Path,
    given: &[&OsStr],
    stdin: &mut dyn BufRead,
) -> Result<Command, Usage> {
    if let Some(image) = given.first() {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            &format!("unexpected argument '{}' besides '--file <FILE>'", image.display()),
            "list it in the file",
        ));
    }
    let is_stdin = file == Path::new("-");
    let list = if is_stdin { list_file::read(stdin, Path::new(HERE)) } else { read_list(file) };
    let mut items = list.map_err(|what| {
        Usage::new(
            ErrorKind::ValueValidation,
            &format!("the file '{}' of '--file <FILE>' {}", file.display(), printable(&what)),
            "it is a list such as [{\"image\": \"result-a\", \"destination\": \
             \"registry.fly.io/a:v1\", \"tags\": [\"latest\"]}]",
        )
    })?;
    if is_stdin && items.iter().any(|item| item.image == Location::Stdin) {
        return Err(stdin_twice("the list of images", "an image in it"));
    }
    for item in &mut items {
        item.selection.platform.clone_from(&args.selection.platform);
    }
    several(items)
}

fn read_list(file: &Path) -> Result<Vec<Item>, String> {
    let opened = File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    // A shell's `<(...)` is a pipe in /dev/fd. Then paths are relative to the current folder.
    let is_file = opened.metadata().is_ok_and(|metadata| metadata.is_file());
    let folder = file.parent().filter(|_| is_file).unwrap_or(Path::new(HERE));
    list_file::read(opened, folder)
}

/// `--all`.
pub fn all(args: &PushArgs, given: &[&OsStr]) -> Result<Command, Usage> {
    let conflict = |what: &str, tip: &str| {
        let what = format!("the argument '--all' cannot be used with {what}");
        Err(Usage::new(ErrorKind::ArgumentConflict, &what, tip))
    };
    let [image] = given else {
        return conflict("a destination", "each image goes to its own name: pushimg --all IMAGE");
    };
    let (archive, selection) = image_of(image)?;
    if selection != Selection::default() {
        let what = format!("'{}', which is one image", image.display());
        return conflict(&what, "give the archive alone, or leave '--all' out");
    }
    if archive == Location::Stdin {
        return conflict("the image '-'", "the archive is read twice; put it into a file");
    }
    Ok(Command::PushAll { archive, platform: args.selection.platform.clone() })
}

/// `--index`.
pub fn index(args: &PushArgs, target: &PushTarget, given: &[&OsStr]) -> Result<Command, Usage> {
    let PushTarget { host, name: destination } = target;
    let images =
        given.iter().map(|text| index_item(text, target)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::new();
    let platforms = images.iter().filter_map(|image| image.platform.as_ref());
    if let Some(twice) = platforms.into_iter().find(|platform| !seen.insert(*platform)) {
        return Err(Usage::new(
            ErrorKind::ValueValidation,
            &format!("two images are for {twice}"),
            "an index has one image for each platform",
        ));
    }
    check_stdin(images.iter().map(|image| &image.image))?;
    let tags = name::other_tags(args.image_args.tags.clone(), Some(destination));
    let (host, destination) = (host.clone(), destination.clone());
    Ok(Command::PushIndex(Index { destination, tags, images, host }))
}

fn index_item(text: &OsStr, target: &PushTarget) -> Result<IndexItem, Usage> {
    let (platform, image) = match image_name::split_first(text) {
        None => (None, text),
        Some((left, image)) => {
            let left = left.to_string_lossy();
            let platform = platform::parse(&left)
                .map_err(|why| Usage::invalid(&left, "PLATFORM=IMAGE", &why.to_string()))?;
            (Some(platform), image)
        }
    };
    let (location, selection) = image_of(image)?;
    let image = match reference_of(image, &location)? {
        Some(reference) => remote_item(reference, target)?,
        None => location,
    };
    let selection = match image {
        Location::Registry(_) => Selection::default(),
        _ => selection,
    };
    Ok(IndexItem { image, selection, platform })
}

/// An image of an index that is already in a registry. It must be the registry of the index.
fn remote_item(reference: Reference, target: &PushTarget) -> Result<Location, Usage> {
    let host = target.name.registry();
    let given = reference.to_string();
    if target.host.is_some() {
        let why = "it is in a registry, and the index goes to a machine over SSH";
        return Err(Usage::invalid(&given, "PLATFORM=IMAGE", why));
    }
    if reference.registry() != host {
        let why = format!(
            "it is in another registry than the index, which goes to {host}; push the image to {host} \
             first, or give its file"
        );
        return Err(Usage::invalid(&given, "PLATFORM=IMAGE", &why));
    }
    Ok(Location::Registry(reference))
}

/// The error if the arguments are swapped: the destination is a file, and the image is not.
fn swapped(image: &OsStr, destination: &str) -> Option<Usage> {
    let is_swapped = Path::new(destination).exists() && !Path::new(image).exists();
    is_swapped.then(|| {
        let image = image.to_string_lossy();
        let what = format!("the image comes first, but '{destination}' is the file");
        let tip =
            format!("pushimg {destination} {}", name::mask_login(&image).unwrap_or(image.into()));
        Usage::new(ErrorKind::ValueValidation, &what, &tip)
    })
}

fn item(args: &PushArgs, given: &OsStr, destination: Option<&OsStr>) -> Result<Item, Usage> {
    let (image, selection) = select(given, &args.selection)?;
    let destination = destination
        .map(|text| {
            let text = text.to_string_lossy();
            // With --keep-tag, the tag is read from the image later.
            let read = match args.image_args.keep_tag && !name::has_tag(&text) {
                true => name::target(&format!("{text}@")),
                false => name::target(&text),
            };
            read.map_err(|why| {
                swapped(given, &text)
                    .unwrap_or_else(|| Usage::invalid(&text, "DESTINATION", &why.to_string()))
            })
        })
        .transpose()?;
    let (host, destination) = name::unzip(destination);
    let tags = name::other_tags(args.image_args.tags.clone(), destination.as_ref());
    Ok(Item { image, selection, destination, tags, host })
}

/// The location of the image. If there are several images, also the one that the argument or the
/// options choose.
pub fn select(image: &OsStr, options: &SelectionArgs) -> Result<(Location, Selection), Usage> {
    let (location, mut selection) = image_of(image)?;
    if let Some(name) = &options.image_name {
        if selection != Selection::default() {
            return Err(Usage::new(
                ErrorKind::ArgumentConflict,
                &format!(
                    "the argument '--image <NAME>' cannot be used with '{}', which already \
                     says which image it is",
                    image.display()
                ),
                "leave one of them out",
            ));
        }
        selection.name = Some(name.clone());
    }
    selection.platform.clone_from(&options.platform);
    Ok((location, selection))
}

/// An image that may also be in a registry: this is so if no file has the name, and the name begins
/// with a host.
pub fn any_image(text: &OsStr, options: &SelectionArgs) -> Result<AnyImage, Usage> {
    let (location, selection) = select(text, options)?;
    let Some(reference) = reference_of(text, &location)? else {
        return Ok(AnyImage::Local(location, selection));
    };
    if options.image_name.is_some() {
        return Err(Usage::new(
            ErrorKind::ArgumentConflict,
            "the argument '--image <NAME>' cannot be used with an image in a registry",
            "give its tag: HOST/REPOSITORY:TAG",
        ));
    }
    Ok(AnyImage::Remote(reference, selection.platform))
}

/// The reference of an image in a registry. `None` if a file has this name, or if the name does not
/// begin with a host.
fn reference_of(text: &OsStr, location: &Location) -> Result<Option<Reference>, Usage> {
    let named = text.to_string_lossy();
    let is_local = match location {
        Location::Stdin | Location::Registry(_) => true,
        Location::Path(path) => path.as_os_str() != text || path.symlink_metadata().is_ok(),
    };
    if is_local || !name::has_host(&named) {
        return Ok(None);
    }
    let reference = name::destination(&named)
        .map_err(|why| Usage::invalid(&named, "IMAGE", &why.to_string()))?;
    Ok(Some(reference))
}

fn image_of(text: &OsStr) -> Result<(Location, Selection), Usage> {
    if text.is_empty() {
        return Err(Usage::invalid("", "IMAGE", "it is empty"));
    }
    Ok(image_name::parse(text, Path::new(HERE)))
}

fn several(items: Vec<Item>) -> Result<Command, Usage> {
    check_stdin(items.iter().map(|item| &item.image))?;
    match same_destination(&items) {
        Some(what) => Err(Usage::new(ErrorKind::ValueValidation, &what, SAME_DESTINATION)),
        None => Ok(Command::PushSeveral(items)),
    }
}
