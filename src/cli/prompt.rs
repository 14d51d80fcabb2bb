//! Questions at the terminal. A signal that ends the program while it waits for a password leaves the
//! terminal as it was.

use std::io;

use console::Term;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::Error;

/// What the terminal was set to; it is set to that again when this is dropped.
struct Settings(Option<Termios>);

impl Settings {
    fn keep() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, settings);
        }
    }
}

/// Asks for a name.
pub async fn name() -> Result<String, Error> {
    ask("User name: ", Term::read_line).await
}

/// Asks for a password, which the terminal does not show.
pub async fn password() -> Result<String, Error> {
    ask("Password: ", Term::read_secure_line).await
}

async fn ask(prompt: &'static str, read: fn(&Term) -> io::Result<String>) -> Result<String, Error> {
    let _settings = Settings::keep();
    let asking = move || {
        let terminal = Term::stderr();
        terminal.write_str(prompt).and_then(|()| read(&terminal))
    };
    // The thread waits on if a signal ends this; the program does not wait for it.
    match tokio::task::spawn_blocking(asking).await {
        Ok(Ok(answer)) if !answer.trim().is_empty() => {
            Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
        }
        _ => Err(Error::Usage(
            "the user name or the password is missing; give it with --username and \
             --password-stdin"
                .to_owned(),
        )),
    }
}
