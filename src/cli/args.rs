//! The command line as clap reads it, and the text of `--help`.
//!
//! What one option alone can be wrong in is checked here; what options have to do with each other,
//! in [`super::invocation`]. Options that are not about one push alone are in groups of their own
//! ([`RegistryArgs`], [`OutputArgs`]).

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Parser, ValueEnum, value_parser};
use oci_client::Reference;

use super::name;
use crate::image;
use crate::push::DEFAULT_JOBS;

/// What `--help` says after what `-h` says.
pub const DETAILS: &str = "\
Examples:
  pushimg result registry.fly.io/app:latest
  pushimg result                        # to the name that the image carries
  pushimg --dry-run result ghcr.io/me/app
  pushimg result ghcr.io/me/app:v2 -t latest --digest-file digest.txt
  docker save app | pushimg - registry.example.com/team/app:v1
  pushimg result registry.fly.io/app | xargs -r fly deploy --image

Result:
  Standard output gets one line, registry/repository@sha256:..., or with --json
  one JSON document; with --dry-run alone, nothing. All else is standard error.

Exit codes:
  0    pushed
  1    failed
  2    wrong usage
  3    the image cannot be read
  4    the registry refused: credentials, permission, name
  5    the network or the registry failed, after retries
  130  interrupted

Environment:
  REGISTRY_AUTH_FILE           credentials, after --auth-file
  DOCKER_CONFIG                folder of Docker's config.json, else ~/.docker
  FLY_ACCESS_TOKEN, FLY_API_TOKEN
                               credentials for registry.fly.io
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                               proxies, and hosts that need none
  TMPDIR                       where compressed layers wait for their upload
  XDG_CACHE_HOME               where the cache is, else ~/.cache
  NO_COLOR, CLICOLOR=0         no colours
  CI, TERM=dumb                plain lines in place of progress bars";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pushimg",
    version,
    about = "Push a locally built container image to a registry, without Docker:\nonly the layers that the registry lacks are sent",
    override_usage = "pushimg [OPTIONS] <IMAGE> [DESTINATION]",
    after_long_help = DETAILS,
    max_term_width = 100,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub struct Args {
    /// A file, a symlink such as ./result, or - for standard input
    pub image: PathBuf,

    /// host[:port]/repository[:tag]; left out, the name that the image itself carries
    #[arg(value_parser = name::destination)]
    pub destination: Option<Reference>,

    #[command(flatten)]
    pub image_args: ImageArgs,

    #[command(flatten)]
    pub reuse: ReuseArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    /// Print this; --help adds examples, exit codes and environment variables
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// What is pushed, and as what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// One more tag in the same repository; may be repeated
    #[arg(short, long = "tag", value_name = "TAG", value_parser = name::tag)]
    pub tags: Vec<String>,

    /// The manifest's format; auto: Docker's for a docker archive, OCI's where zstd is used
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub format: Format,

    /// How new layers are compressed
    #[arg(long, value_name = "METHOD", default_value = "gzip")]
    pub compression: Compression,

    /// 1 to 12 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub compression_level: Option<i32>,

    /// How many layers are uploaded at the same time, 1 to 64
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_JOBS as u8, value_parser = value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Find out everything, say what would be uploaded, upload nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where uploaded layers are looked for.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reuse")]
pub struct ReuseArgs {
    /// Another image of the same registry whose layers may be used; may be repeated
    #[arg(long, value_name = "REF", value_parser = name::reference)]
    pub reuse_from: Vec<Reference>,

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
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = name::duration)]
    pub retry_for: Duration,

    /// How long a connection may stand still; the answer to a layer's last byte, five times that
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = name::idle_timeout)]
    pub idle_timeout: Duration,
}

/// What is printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print a report of every layer as JSON
    #[arg(long)]
    pub json: bool,

    /// Write the manifest's digest to this file, once it is pushed
    #[arg(long, value_name = "PATH", conflicts_with = "dry_run")]
    pub digest_file: Option<PathBuf>,

    /// Print nothing but errors and the result
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print why each layer was sent or not, and requests; twice: their headers
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print the version
    #[arg(short = 'V', long = "version", action = ArgAction::Version)]
    version: Option<bool>,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Auto,
    Docker,
    Oci,
}

/// `--compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

impl From<Format> for Option<image::Format> {
    fn from(format: Format) -> Self {
        match format {
            Format::Auto => None,
            Format::Docker => Some(image::Format::Docker),
            Format::Oci => Some(image::Format::Oci),
        }
    }
}

impl From<Compression> for image::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
            Compression::None => Self::None,
        }
    }
}
