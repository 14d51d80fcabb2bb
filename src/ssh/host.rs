//! A machine that is reached over SSH, as `ssh://[user@]host[:port]` names it.

use std::fmt;

/// A machine that is reached over SSH.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    user: Option<String>,
    /// A name, an address, or an alias from the user's SSH configuration. An IPv6 address is
    /// without its brackets.
    name: String,
    port: Option<u16>,
}

/// Why a text is not a valid host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// The host is missing, or contains an invalid character.
    #[error("{0:?} is no host; write ssh://[user@]host[:port]/name[:tag]")]
    Name(String),
    /// The part before `@` is not a valid user name.
    #[error(
        "the part before '@' is no user name; a password does not belong here: ssh asks for it, or \
         use a key"
    )]
    User,
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is no port: a port is a number from 1 to 65535")]
    Port(String),
}

impl Host {
    /// Reads `[user@]host[:port]`.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        // ssh would take a user name that begins with '-' for an option.
        if user.is_some_and(|user| !is_word(user, "._-+\\")) {
            return Err(InvalidHost::User);
        }
        let invalid = || InvalidHost::Name(rest.to_owned());
        let (name, port) = match rest.strip_prefix('[') {
            Some(address) => {
                let (name, after) = address.split_once(']').ok_or_else(invalid)?;
                let port = after.strip_prefix(':');
                if name.parse::<std::net::Ipv6Addr>().is_err()
                    || (port.is_none() && !after.is_empty())
                {
                    return Err(invalid());
                }
                (name, port)
            }
            None => {
                let (name, port) = match rest.split_once(':') {
                    Some((name, port)) => (name, Some(port)),
                    None => (rest, None),
                };
                if !is_word(name, "._-") {
                    return Err(invalid());
                }
                (name, port)
            }
        };
        let port = match port {
            None => None,
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(InvalidHost::Port(text.to_owned())),
            },
        };
        Ok(Self { user: user.map(str::to_owned), name: name.to_owned(), port })
    }

    /// The arguments of `ssh` for this host.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.name.clone()]);
        arguments
    }
}

/// Whether a text has only letters, digits and `others`, and does not begin with `-`.
fn is_word(text: &str, others: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => f.write_str(&self.name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_it_was_read() {
        for text in ["web1", "me@web1.example:2222", "root@[::1]:22", "[fe80::1]", "a.b-c_d"] {
            assert_eq!(Host::parse(text).unwrap().to_string(), format!("ssh://{text}"));
        }
        let host = Host::parse("me@[::1]:2222").unwrap();
        assert_eq!(host.arguments(), ["-l", "me", "-p", "2222", "--", "::1"]);
    }

    #[test]
    fn what_ssh_could_take_for_an_option_or_a_shell_for_a_command_is_no_host() {
        for text in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(a)",
            "a:",
            "a:0",
            "a:99999",
            "a:x",
            "[::1",
            "[a]",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
        for text in ["-l@web1", "me:secret@web1", "@web1", "a b@web1"] {
            let error = Host::parse(text).unwrap_err();
            assert_eq!(error, InvalidHost::User, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
