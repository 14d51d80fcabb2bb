//! Lines of an htpasswd file, for a registry with Basic auth:
//! `DockerRegistryOptions { logins: &[("ci", "a:b")], ..Default::default() }`.

use std::process::Command;
use std::time::Duration;

use super::run::finish;

/// `user:<bcrypt of the password>` and a line end, made by the `htpasswd` program.
pub fn line(user: &str, password: &str) -> String {
    let mut command = Command::new("htpasswd");
    // -i would end the password at its first line end, and it may have several.
    command.args(["-nbB", "-C", "5", user, password]);
    let output = finish(command, None, Duration::from_secs(20)).success();
    output.stdout.trim_end().to_owned() + "\n"
}
