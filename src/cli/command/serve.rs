//! Reads the arguments of `pushimg serve`: which images to serve, and under which names.

use std::ffi::{OsStr, OsString};

use super::conflict::check_stdin;
use super::{Command, Invocation, checks, default_options, forms, image_name, verbosity};
use crate::cli::args::ServeArgs;
use crate::cli::serve::UntilPulled;
use crate::cli::usage::Usage;
use crate::push::PushOptions;
use crate::reuse::CacheLocation;
use crate::serve::{Offer, PullName};

impl Invocation {
    pub(super) fn serve(args: ServeArgs) -> Result<Self, Usage> {
        checks::compression_of(args.format, args.compression, args.compression_level)?;
        let offers: Vec<Offer> =
            args.images.iter().map(|image| offer(image, &args)).collect::<Result<_, Usage>>()?;
        check_stdin(offers.iter().map(|offer| &offer.image))?;
        let options = PushOptions {
            format: args.format,
            compression: args.compression,
            level: args.compression_level,
            may_run: !args.selection.no_exec,
            cache: match (args.no_cache, args.cache_dir) {
                (true, _) => None,
                (false, Some(folder)) => Some(CacheLocation::Folder(folder)),
                (false, None) => Some(CacheLocation::User),
            },
            ..default_options()
        };
        let until_pulled = if args.until_pulled { UntilPulled::Yes } else { UntilPulled::No };
        let command = Command::Serve { offers, listen: args.listen, until_pulled };
        Ok(Self { options, verbosity: verbosity(&args.verbosity), ..command.into() })
    }
}

/// `IMAGE` or `IMAGE=NAME[:TAG]`.
fn offer(text: &OsString, args: &ServeArgs) -> Result<Offer, Usage> {
    let (image, name) = match image_name::split_last(text) {
        Some((image, name)) => (image, Some(pull_name(name)?)),
        None => (text.as_os_str(), None),
    };
    let (image, selection) = forms::select(image, &args.selection)?;
    Ok(Offer { image, selection, name })
}

fn pull_name(name: &OsStr) -> Result<PullName, Usage> {
    let text = name.to_string_lossy();
    PullName::of(&text).ok_or_else(|| {
        Usage::invalid(&text, "NAME", "it is no name of an image, such as app or team/app:v1")
    })
}
