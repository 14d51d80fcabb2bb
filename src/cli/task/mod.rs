//! What is to be pushed: positional arguments, `--file`, `--all` and `--index` in, a [`Task`] out,
//! every combination checked.
//!
//! - `forms` reads each form of the command line.
//! - `image_name` is how an image is written, `list_file` what `--file` names.
//! - `conflict` finds images that would get into each other's way.

mod conflict;
mod forms;
mod image_name;
mod list_file;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::BufRead;

use clap::error::ErrorKind;
use oci_client::Reference;

pub use self::conflict::{SAME_DESTINATION, same_destination};
pub use self::forms::select;
#[cfg(any(test, feature = "fuzzing"))]
pub use self::list_file::parse as parse_list;
use super::args::PushArgs;
use super::usage::Usage;
use crate::image::Platform;
use crate::push::{Index, Item};
use crate::source::Location;

/// What is pushed.
#[derive(Debug)]
pub enum Task {
    /// One image.
    One(Item),
    /// Images, together.
    Several(Vec<Item>),
    /// All images of an archive, each under its own name.
    All {
        /// The archive.
        archive: Location,
        /// Of images for several platforms, the one for this.
        platform: Option<Platform>,
    },
    /// Images for several platforms, and an index over them.
    Index(Index),
}

/// What several images look like on a command line.
const PAIRS: &str = "pushimg IMAGE=DESTINATION IMAGE=DESTINATION ...";

/// The task that the arguments ask for. `stdin` has the list where `--file -` is given.
pub fn of(args: &PushArgs, stdin: &mut dyn BufRead) -> Result<Task, Usage> {
    let given = [&args.image, &args.destination].into_iter().flatten().chain(&args.more);
    let given: Vec<&OsString> = given.collect();
    let several = &args.several;
    let task = match (&several.file, &several.index) {
        (Some(file), _) => forms::listed(args, file, &given, stdin)?,
        _ if given.is_empty() => {
            return Err(Usage::new(
                ErrorKind::MissingRequiredArgument,
                "the following required arguments were not provided:\n  <IMAGE>",
                "pushimg result registry.fly.io/app:latest",
            ));
        }
        (None, Some(destination)) => forms::index(args, destination, &given)?,
        (None, None) if several.all => forms::all(args, &given)?,
        (None, None) => forms::images(args, &given)?,
    };
    check_options(args, &task)?;
    Ok(task)
}

/// Options that are for one image only, or for several only.
fn check_options(args: &PushArgs, task: &Task) -> Result<(), Usage> {
    let wrong = match task {
        Task::One(_) if args.several.fail_fast => {
            Some(("--fail-fast", "a single image", format!("it is for several: {PAIRS}")))
        }
        Task::One(_) => None,
        Task::Index(_) if args.selection.image_name.is_some() => {
            let tip = "say it with the file: PLATFORM=PATH:NAME".to_owned();
            Some(("--image <NAME>", "'--index <DESTINATION>'", tip))
        }
        Task::Index(_) => None,
        Task::Several(_) | Task::All { .. } if !args.image_args.tags.is_empty() => {
            let tip = match (args.several.all, &args.several.file) {
                (true, _) => "each image goes under its own names; leave it out",
                (false, Some(_)) => "each image has its own: \"tags\" in the file",
                (false, None) => "each may have its own: \"tags\" in what '--file' lists",
            };
            Some(("--tag <TAG>", "several images", tip.to_owned()))
        }
        Task::Several(_) | Task::All { .. } if args.selection.image_name.is_some() => {
            let tip = "say it with the file: PATH:NAME=DESTINATION".to_owned();
            Some(("--image <NAME>", "several images", tip))
        }
        Task::Several(_) | Task::All { .. } if args.output.digest_file.is_some() => {
            let tip = "standard output has the digests, a line for each image".to_owned();
            Some(("--digest-file <PATH>", "several images", tip))
        }
        Task::Several(_) | Task::All { .. } => None,
    };
    match wrong {
        None => Ok(()),
        Some((argument, other, tip)) => {
            let what = format!("the argument '{argument}' cannot be used with {other}");
            Err(Usage::new(ErrorKind::ArgumentConflict, &what, &tip))
        }
    }
}

impl Task {
    /// Whether an image of it is standard input.
    pub fn reads_stdin(&self) -> bool {
        let is_stdin = |location: &Location| *location == Location::Stdin;
        match self {
            Self::One(item) => is_stdin(&item.image),
            Self::Several(items) => items.iter().any(|item| is_stdin(&item.image)),
            Self::All { archive, .. } => is_stdin(archive),
            Self::Index(index) => index.images.iter().any(|image| is_stdin(&image.image)),
        }
    }

    /// The destinations that are known before anything is read.
    pub fn destinations(&self) -> Vec<&Reference> {
        match self {
            Self::One(item) => item.destination.iter().collect(),
            Self::Several(items) => items.iter().filter_map(|i| i.destination.as_ref()).collect(),
            Self::All { .. } => vec![],
            Self::Index(index) => vec![&index.destination],
        }
    }
}
