//! `pushimg login` and `pushimg logout`: the registry, the user, and the password, which comes from
//! standard input, the terminal, or for registry.fly.io from the environment.

use std::io::BufRead;

use super::password::password;
use super::{Command, Invocation, verbosity};
use crate::cli::args::{LoginArgs, LogoutArgs};
use crate::cli::usage::Usage;
use crate::registry::Options;
use crate::registry::auth::{Environment, Sources, token_login};
use clap::error::ErrorKind;

impl Invocation {
    pub(super) fn login(
        args: LoginArgs,
        stdin: &mut dyn BufRead,
        stdin_is_terminal: bool,
    ) -> Result<Self, Usage> {
        let environment = Environment::capture();
        let token = token_login(&args.registry);
        // The registry's user name for all tokens, if it has one.
        let user = || token.map(|login| login.username.to_owned());
        let found = token.and_then(|login| login.find(&environment));
        let (username, password) = match (args.username, found) {
            (username, _) if args.password_stdin => {
                let username = username.or_else(user);
                let username =
                    username.ok_or_else(|| missing("the user name", "--username NAME"))?;
                (Some(username), Some(password(stdin)?))
            }
            (None, Some((username, password))) => (Some(username), Some(password)),
            (username, _) if stdin_is_terminal => (username.or_else(user), None),
            _ => return Err(missing("the password", "--password-stdin")),
        };
        let registry = Options {
            plain_http: args.connection.plain_http,
            credentials: Sources { explicit: None, auth_file: args.auth_file, environment },
            tls: args.connection.tls(),
            ..Options::default()
        };
        let command = Command::Login { registry: args.registry, username, password };
        let mut invocation = Self { verbosity: verbosity(&args.verbosity), ..command.into() };
        invocation.options.registry = registry;
        Ok(invocation)
    }

    pub(super) fn logout(args: LogoutArgs) -> Self {
        let environment = Environment::capture();
        let mut invocation = Self::from(Command::Logout { registry: args.registry });
        invocation.options.registry.credentials =
            Sources { explicit: None, auth_file: args.auth_file, environment };
        invocation
    }
}

fn missing(what: &str, option: &str) -> Usage {
    Usage::new(
        ErrorKind::MissingRequiredArgument,
        &format!("{what} is missing: standard input is not a terminal to ask at, or it is in use"),
        &format!(
            "give it with {option}: echo \"$TOKEN\" | pushimg login REGISTRY --username NAME \
             --password-stdin"
        ),
    )
}
