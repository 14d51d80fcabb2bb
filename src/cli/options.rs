//! The groups of options that several commands have in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, ValueHint};

use super::{duration, name, platform};
use crate::image::{Platform, Reference};
use crate::registry::TlsOptions;
use crate::ssh::{self, RuntimeName};

/// Which image of several, and whether it may be run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub struct SelectionArgs {
    /// Choose the image of this name, or whose id begins so, if there are several; the same as PATH:NAME
    #[arg(long = "image", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub image_name: Option<String>,

    /// Choose the image for this platform, [os/]arch[/variant], from one for several
    #[arg(long, value_name = "PLATFORM", value_parser = platform::parse)]
    pub platform: Option<Platform>,

    /// Never run the image, even if it is a program that writes one
    #[arg(long)]
    pub no_exec: bool,
}

/// Where to look for layers that are already uploaded.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Reuse")]
pub struct ReuseArgs {
    /// Another image of the same registry whose layers may be reused; may be repeated
    #[arg(long, value_name = "REF", value_parser = name::reference)]
    pub reuse_from: Vec<Reference>,

    /// Write, and trust, annotations that say what a stream script's layers are made of
    #[arg(long)]
    pub trust_annotations: bool,

    /// Do not read or write the local cache
    #[arg(long, conflicts_with = "cache_dir")]
    pub no_cache: bool,

    /// Folder of the local cache
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache_dir: Option<PathBuf>,
}

/// How to talk to the registry.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// User name; needs --password-stdin
    #[arg(short, long, value_name = "NAME", requires = "password_stdin", value_parser = NonEmptyStringValueParser::new())]
    pub username: Option<String>,

    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,

    /// Credentials in the format of Docker's config.json; used before all others
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub auth_file: Option<PathBuf>,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// How long to retry a failed request, such as 90s or 1h; 0 means no retries
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::duration)]
    pub retry_for: Duration,

    /// How long a connection may be idle; the answer to a layer's last byte may take five times
    /// as long
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::idle_timeout)]
    pub idle_timeout: Duration,
}

/// How a registry is reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct ConnectionArgs {
    /// Use plain HTTP; for loopback addresses it is tried without this option
    #[arg(long)]
    pub plain_http: bool,

    /// PEM file with certificates to trust besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Option<PathBuf>,

    /// Accept any certificate: others on the network can read and change everything
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
}

impl ConnectionArgs {
    /// Which certificates are trusted.
    pub fn tls(&self) -> TlsOptions {
        TlsOptions { ca_file: self.ca_file.clone(), skip_verify: self.insecure_skip_tls_verify }
    }
}

/// How to bring images to machines over SSH.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "SSH")]
pub struct SshArgs {
    /// What gets the image on the machine
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = runtimes())]
    pub runtime: ChosenRuntime,

    /// Call the runtime there through sudo, which must not ask for a password
    #[arg(long)]
    pub remote_sudo: bool,

    /// containerd's namespace; default: k8s.io for k3s and crictl, else containerd's own default
    #[arg(long, value_name = "NAME", value_parser = name::namespace)]
    pub remote_namespace: Option<String>,

    /// The program that connects, and its options, such as 'ssh -i key'; default: $PUSHIMG_SSH, or
    /// ssh
    #[arg(long, value_name = "COMMAND", value_parser = NonEmptyStringValueParser::new())]
    pub ssh: Option<String>,
}

/// `--runtime`; `None` for `auto`. The alias keeps clap from reading `Option` as "may be left out".
type ChosenRuntime = Option<RuntimeName>;

fn runtimes() -> impl TypedValueParser<Value = ChosenRuntime> {
    PossibleValuesParser::new(["auto"].into_iter().chain(ssh::runtime_words()))
        .map(|text| ssh::runtime_by_word(&text))
}

/// How much is printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct VerbosityArgs {
    /// Print only errors and the result
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also print notes and requests; twice: their headers
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}
