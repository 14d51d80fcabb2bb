//! `pushimg serve`: which images, under which names, and where to listen.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// Reads `[HOST:]PORT`, where the host is an address or `localhost`.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(loopback, port));
    }
    if let Some(Ok(port)) = text.strip_prefix("localhost:").map(str::parse) {
        return Ok(SocketAddr::new(loopback, port));
    }
    text.parse().map_err(|_| {
        "it is not ADDRESS:PORT, such as 127.0.0.1:5000, or 0.0.0.0:5000 for everybody".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_address_only_this_machine_is_served() {
        for (text, address) in [
            ("5000", "127.0.0.1:5000"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), address, "{text}");
        }
        for text in ["", ":5000", "example.com:5000", "70000", "127.0.0.1"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }
}
