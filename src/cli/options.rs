//! The groups of options that several commands have in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::NonEmptyStringValueParser;
use oci_client::Reference;

use super::{duration, name, platform};
use crate::image::Platform;

/// Which image of several, and whether it may be run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub struct SelectionArgs {
    /// Of several images in one place, the one of this name; the same as PATH:NAME
    #[arg(long = "image", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub image_name: Option<String>,

    /// Of an image for several platforms, the one for this: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM", value_parser = platform::parse)]
    pub platform: Option<Platform>,

    /// Never run an image that is a program which writes one
    #[arg(long)]
    pub no_exec: bool,
}

/// Where to look for layers that are already uploaded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reuse")]
pub struct ReuseArgs {
    /// Another image of the same registry whose layers may be used; may be repeated
    #[arg(long, value_name = "REF", value_parser = name::reference)]
    pub reuse_from: Vec<Reference>,

    /// Believe previous images that say by annotations what their layers were made of
    #[arg(long)]
    pub trust_annotations: bool,

    /// Neither read nor write the local cache
    #[arg(long, conflicts_with = "cache_dir")]
    pub no_cache: bool,

    /// Where the local cache is kept
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// How to talk to the registry.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// User name, with --password-stdin
    #[arg(long, value_name = "NAME", requires = "password_stdin", value_parser = NonEmptyStringValueParser::new())]
    pub username: Option<String>,

    /// Read the password from the first line of standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,

    /// File of credentials in the form of Docker's config.json, looked at first
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Plain HTTP; loopback addresses try it on their own
    #[arg(long)]
    pub plain_http: bool,

    /// Certificates to trust besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Take any certificate: whoever is in between can read and change everything
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,

    /// How long to try again what may yet succeed, such as 90s or 1h; 0: not at all
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::duration)]
    pub retry_for: Duration,

    /// How long a connection may stand still; the answer to a layer's last byte, five times that
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::idle_timeout)]
    pub idle_timeout: Duration,
}

/// How much is printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct VerbosityArgs {
    /// Print nothing but errors and the result
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print why each layer was sent or not, and requests; twice: their headers
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}
