//! Credential programs: `docker-credential-<name> get` reads the server from stdin; `store` and
//! `erase` work likewise.
//!
//! A program is searched by its name in the folders of `PATH`, never by a path from a file. It has
//! to answer within [`LIMIT`]. Its error messages are shown; its answers are not.
//!
//! docker/docker-credential-helpers, "Development".

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::error::{CredentialError, excerpt};
use super::secret::Secret;
use crate::json;

/// How long a program may take: long enough to type a passphrase.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// How long the program's output is read after it has ended.
const AFTER_END: Duration = Duration::from_millis(500);
/// How much of a program's output is read.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// What a program prints on stdout if it has no login for the server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A credential program.
#[derive(Debug)]
pub(super) struct Program {
    /// `docker-credential-<name>`.
    name: String,
    file: PathBuf,
    limit: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Secret,
}

impl Program {
    /// Finds `docker-credential-<name>` in `path`; `None` if it is not installed. `config` is the
    /// file that names it, for messages.
    pub fn find(
        name: &str,
        path: Option<&OsStr>,
        config: &Path,
    ) -> Result<Option<Self>, CredentialError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(CredentialError::ProgramName {
                name: excerpt(name),
                config: config.to_owned(),
            });
        }
        let name = format!("docker-credential-{name}");
        let file = std::env::split_paths(path.unwrap_or_default())
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&name))
            .find(|file| {
                file.metadata()
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            });
        Ok(file.map(|file| Self { name, file, limit: LIMIT }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's login for a server; `None` if it has none.
    pub async fn get(&self, server: &str) -> Result<Option<Credential>, CredentialError> {
        let Some(run) = self.run("get", server, server.as_bytes()).await? else {
            return Ok(None);
        };
        let answer: HelperAnswer =
            json::from_slice(&run.stdout).map_err(|_| CredentialError::ProgramAnswer {
                program: self.name.clone(),
                server: server.to_owned(),
                said: said(&run.stderr),
            })?;
        if answer.secret.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::from_login(answer.username, answer.secret)))
    }

    /// Gives the program a login to store.
    pub async fn store(
        &self,
        server: &str,
        username: &str,
        password: &Secret,
    ) -> Result<(), CredentialError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct HelperLogin<'a> {
            #[serde(rename = "ServerURL")]
            server: &'a str,
            username: &'a str,
            secret: &'a str,
        }
        let login = HelperLogin { server, username, secret: password.expose() };
        // Cannot fail, because it contains only text.
        let input = Zeroizing::new(serde_json::to_vec(&login).unwrap_or_default());
        self.run("store", server, &input).await.map(drop)
    }

    /// Makes the program delete the login for a server. Returns whether there was one.
    pub async fn erase(&self, server: &str) -> Result<bool, CredentialError> {
        Ok(self.run("erase", server, server.as_bytes()).await?.is_some())
    }

    /// Runs the program with an input. `None` if it has no login for the server.
    async fn run(
        &self,
        verb: &'static str,
        server: &str,
        input: &[u8],
    ) -> Result<Option<HelperRun>, CredentialError> {
        let run = tokio::time::timeout(self.limit, self.start(verb, input))
            .await
            .map_err(|_| CredentialError::ProgramTimeout {
                program: self.name.clone(),
                verb,
                server: server.to_owned(),
                limit: self.limit,
            })?
            .map_err(|error| CredentialError::ProgramStart {
                program: self.name.clone(),
                file: self.file.clone(),
                source: Arc::new(error),
            })?;
        if run.status.success() {
            return Ok(Some(run));
        }
        let message = String::from_utf8_lossy(&run.stdout);
        let complaint = said(&run.stderr);
        if message.contains(NOT_FOUND) || complaint.contains(NOT_FOUND) {
            return Ok(None);
        }
        // An error message is plain text. JSON may be an answer, which must not be shown.
        let message = if message.contains(['{', '"']) { String::new() } else { excerpt(&message) };
        let spoken: Vec<_> =
            [message, complaint].into_iter().filter(|text| !text.is_empty()).collect();
        Err(CredentialError::ProgramFailed {
            program: self.name.clone(),
            verb,
            server: server.to_owned(),
            status: run.status.to_string(),
            said: if spoken.is_empty() { "it said nothing".into() } else { spoken.join("; ") },
        })
    }

    /// Starts the program and reads its output. Dropping the future kills the program.
    async fn start(&self, verb: &str, input: &[u8]) -> std::io::Result<HelperRun> {
        let mut child = Command::new(&self.file)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let ask = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input may still answer.
                let _ = stdin.write_all(input).await;
            }
        };
        let (mut answer, mut complaint) = (HelperOutput::default(), HelperOutput::default());
        let reading = async {
            let read =
                async { tokio::try_join!(read(stdout, &mut answer), read(stderr, &mut complaint)) };
            tokio::join!(ask, read).1
        };
        // A process that the program has started may keep its outputs open, so do not wait for
        // their end for long.
        let ended = async {
            let status = child.wait().await;
            tokio::time::sleep(AFTER_END).await;
            status
        };
        tokio::select! {
            biased;
            done = reading => drop(done?),
            status = ended => drop(status?),
        }
        Ok(HelperRun { status: child.wait().await?, stdout: answer, stderr: complaint })
    }
}

/// The result of one run of a program.
struct HelperRun {
    status: ExitStatus,
    stdout: HelperOutput,
    stderr: HelperOutput,
}

fn said(bytes: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(bytes))
}

type HelperOutput = Zeroizing<Vec<u8>>;

async fn read(from: Option<impl AsyncRead + Unpin>, to: &mut HelperOutput) -> std::io::Result<()> {
    if let Some(from) = from {
        from.take(MAX_OUTPUT).read_to_end(to).await?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Puts a shell script into `folder` as `docker-credential-<name>`.
    ///
    /// The file is written by another process: a file that this one has open for writing could be
    /// inherited by a child that another test starts just then, and would not be executable.
    pub fn install(folder: &Path, name: &str, script: &str) {
        let status = std::process::Command::new("sh")
            .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#, "sh"])
            .arg(folder.join(format!("docker-credential-{name}")))
            .arg(script)
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn program(script: &str) -> (tempfile::TempDir, Program) {
        let folder = tempfile::tempdir().unwrap();
        install(folder.path(), "fake", script);
        let program = Program::find("fake", Some(folder.path().as_os_str()), Path::new("/c.json"))
            .unwrap()
            .unwrap();
        (folder, program)
    }

    #[tokio::test]
    async fn the_server_is_asked_for_on_stdin() {
        let (_folder, program) = program(
            r#"read server; printf '{"ServerURL":"%s","Username":"%s","Secret":"s"}' x "$1@$server""#,
        );
        assert_eq!(
            program.get("https://index.docker.io/v1/").await.unwrap(),
            Some(Credential::from_login("get@https://index.docker.io/v1/", Secret::new("s")))
        );
    }

    #[tokio::test]
    async fn a_user_name_in_angle_brackets_is_an_identity_token() {
        let (_folder, program) = program(r#"echo '{"Username":"<token>","Secret":"s"}'"#);
        assert_eq!(
            program.get("h").await.unwrap(),
            Some(Credential::IdentityToken(Secret::new("s")))
        );
    }

    #[tokio::test]
    async fn nothing_found_is_no_error() {
        for script in [
            "echo credentials not found in native keychain; exit 1",
            "echo 'Error: credentials not found in native keychain' >&2; exit 1",
            r#"echo '{"Username":"","Secret":""}'"#,
        ] {
            let (_folder, program) = program(script);
            assert_eq!(program.get("h").await.unwrap(), None, "{script}");
        }
    }

    #[tokio::test]
    async fn a_failure_shows_what_the_program_said() {
        let (_folder, program) = program("echo out words; echo err words >&2; exit 3");
        let error = program.get("h.example").await.unwrap_err().to_string();
        for part in ["docker-credential-fake", "h.example", "out words", "err words", "3"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_never_shown() {
        for script in [
            r#"echo '{"Username":"u","Secret":"hunter2"}'; exit 1"#,
            r#"echo '{"Username":"u","Secret":"hunter2"'"#,
            "echo hunter2",
        ] {
            let (_folder, program) = program(script);
            let error = program.get("h").await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up_and_killed() {
        let (folder, mut program) = program(r#"echo $$ > "${0%/*}/pid"; exec sleep 60"#);
        program.limit = Duration::from_millis(1500);
        let error = program.get("h").await.unwrap_err().to_string();
        assert!(error.contains("1.5") && error.contains("docker-credential-fake"), "{error}");
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        for _ in 0..100 {
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(" Z ") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => return,
            }
        }
        panic!("the program still runs");
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_is_not_waited_for() {
        let script = r#"echo '{"Username":"me","Secret":"s"}'; sleep 20 &"#;
        let (_folder, program) = program(script);
        let began = std::time::Instant::now();
        assert!(program.get("r.example").await.unwrap().is_some());
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn endless_output_ends() {
        let (_folder, program) = program("exec yes");
        assert!(program.get("h").await.is_err());
    }

    #[test]
    fn a_name_that_is_more_than_a_name_is_refused() {
        let long = "x".repeat(65);
        for name in ["", "../evil", "/bin/sh", "a b", "a\nb", "a;b", "$(id)", "é", &long] {
            let error = Program::find(name, None, Path::new("/c.json")).unwrap_err();
            assert!(error.to_string().contains("/c.json"), "{name}");
        }
    }

    #[test]
    fn only_executable_files_in_absolute_folders_are_programs() {
        let folder = tempfile::tempdir().unwrap();
        let find = |path: &OsStr| Program::find("fake", Some(path), Path::new("/c.json")).unwrap();
        assert!(find(folder.path().as_os_str()).is_none());
        std::fs::write(folder.path().join("docker-credential-fake"), "x").unwrap();
        assert!(find(folder.path().as_os_str()).is_none());
        install(folder.path(), "fake", "true");
        assert!(find(folder.path().as_os_str()).is_some());
        assert!(find(OsStr::new("")).is_none());
        assert!(find(OsStr::new(".")).is_none());
        assert!(Program::find("fake", None, Path::new("/c.json")).unwrap().is_none());
    }
}
