//! Asks questions at the terminal. If a signal ends the program during a question, the settings of
//! the terminal are restored.

use std::io;

use console::Term;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::Error;

/// The settings of the terminal. They are restored when this value is dropped.
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

/// Asks for a user name.
pub async fn name() -> Result<String, Error> {
    ask("User name: ", Term::read_line).await
}

/// Asks for a password. The terminal does not show what is typed.
pub async fn password() -> Result<String, Error> {
    ask("Password: ", Term::read_secure_line).await
}

async fn ask(prompt: &'static str, read: fn(&Term) -> io::Result<String>) -> Result<String, Error> {
    let _settings = Settings::keep();
    let asking = move || {
        let terminal = Term::stderr();
        terminal.write_str(prompt).and_then(|()| read(&terminal))
    };
    // If a signal ends this future, the thread keeps waiting, but the program does not wait for it.
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
