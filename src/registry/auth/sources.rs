//! The search for a credential: which places are searched, in which order, and what messages say
//! about it.
//!
//! The first place with a credential for the registry is used. A place that does not exist or has
//! no entry for this registry is skipped. A broken place is an error, because otherwise the push
//! might use another user than the user of this program wanted.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::super::hosts;
use super::credential::{Credential, Found};
use super::docker_config::DockerConfig;
use super::environment::Environment;
use super::error::CredentialError;
use super::helper::Program;
use super::secret::Secret;

/// The longest file of credentials that is read, in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Where credentials are looked for, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--username` with its password. It is sent to every registry that these sources are used
    /// for.
    pub explicit: Option<(String, Secret)>,
    /// `--auth-file`.
    pub auth_file: Option<PathBuf>,
    /// The environment. Default: empty; [`Environment::capture`] reads that of the process.
    pub environment: Environment,
}

/// A place with credentials: a file, or a variable with the content of a file.
struct CredentialFile {
    path: PathBuf,
    content: FileContent,
}

enum FileContent {
    /// A file in its usual place.
    Usual,
    /// A file that the user named by this option or variable; it must exist.
    Named(&'static str),
    /// The value of a variable.
    Value(Secret),
}

impl Sources {
    /// Looks for a credential for a repository. `registry` is the name as the user wrote it
    /// (`docker.io`, `host:5000`).
    ///
    /// # Errors
    ///
    /// A file that the user named is missing; any file that is looked at is broken; a credential
    /// program fails.
    pub async fn find(&self, registry: &str, repository: &str) -> Result<Found, CredentialError> {
        if let Some((username, password)) = &self.explicit {
            return Ok(Found {
                credential: Some(Credential::from_login(username, password.clone())),
                origin: "from --username".into(),
            });
        }
        let mut looked = Vec::new();
        for place in self.places() {
            match self.look_into(&place, registry, repository).await? {
                Looked::Found(found) => return Ok(found),
                Looked::Nothing(note) => looked.push(note),
            }
        }
        if let Some(login) = hosts::token_login(registry) {
            for (name, token) in (login.tokens)(&self.environment) {
                if let Some(password) = token.and_then(login.password) {
                    let username = login.username.to_owned();
                    return Ok(Found {
                        credential: Some(Credential::Basic { username, password }),
                        origin: format!("from {name}"),
                    });
                }
                looked.push(format!("{name} (not set)"));
            }
        }
        Ok(Found {
            credential: None,
            origin: if looked.is_empty() {
                format!(
                    "no credentials for {registry} were found: none of REGISTRY_AUTH_FILE, \
                     DOCKER_AUTH_CONFIG, DOCKER_CONFIG, XDG_RUNTIME_DIR and HOME is set"
                )
            } else {
                format!("no credentials for {registry} were found in {}", looked.join(", "))
            },
        })
    }

    fn places(&self) -> Vec<CredentialFile> {
        let environment = &self.environment;
        let named = |path: &Option<PathBuf>, by| {
            path.clone().map(|path| CredentialFile { path, content: FileContent::Named(by) })
        };
        let usual = |folder: &Option<PathBuf>, below: &str| {
            let path = folder.as_ref()?.join(below);
            Some(CredentialFile { path, content: FileContent::Usual })
        };
        let value = environment.docker_auth_config.clone().map(|value| CredentialFile {
            path: "$DOCKER_AUTH_CONFIG".into(),
            content: FileContent::Value(value),
        });
        let mut places: Vec<CredentialFile> = Vec::new();
        for place in [
            named(&self.auth_file, "--auth-file"),
            named(&environment.registry_auth_file, "$REGISTRY_AUTH_FILE"),
            value,
            usual(&environment.docker_config, "config.json"),
            usual(&environment.containers_runtime, "auth.json"),
            usual(&environment.containers_config, "auth.json"),
            usual(&environment.home, ".docker/config.json"),
        ]
        .into_iter()
        .flatten()
        {
            if places.iter().all(|earlier| earlier.path != place.path) {
                places.push(place);
            }
        }
        places
    }

    async fn look_into(
        &self,
        place: &CredentialFile,
        registry: &str,
        repository: &str,
    ) -> Result<Looked, CredentialError> {
        let shown = place.path.display();
        let Some(bytes) = read(place).await? else {
            return Ok(Looked::Nothing(match place.path.parent() {
                // The user probably set DOCKER_CONFIG to the file in place of its folder.
                Some(folder) if folder.is_file() => {
                    format!("{shown} ({} is a file, not a folder)", folder.display())
                }
                _ => format!("{shown} (does not exist)"),
            }));
        };
        let listed = DockerConfig::parse(&place.path, &bytes)?.lookup(registry, repository)?;
        let found = |credential, by: Option<&Program>| {
            Looked::Found(Found {
                credential: Some(credential),
                origin: match by {
                    Some(program) => format!("from {} named in {shown}", program.name()),
                    None => format!("from {shown}"),
                },
            })
        };
        if let Some(name) = &listed.helper {
            let program = self.program(name, &place.path)?.ok_or_else(|| {
                CredentialError::ProgramMissing {
                    program: format!("docker-credential-{name}"),
                    config: place.path.clone(),
                    registry: registry.to_owned(),
                }
            })?;
            if let Some(credential) = ask(&program, &listed.servers).await? {
                return Ok(found(credential, Some(&program)));
            }
        }
        if let Some(credential) = listed.credential {
            return Ok(found(credential, None));
        }
        if let Some(name) = &listed.store {
            match self.program(name, &place.path)? {
                Some(program) => {
                    if let Some(credential) = ask(&program, &listed.servers).await? {
                        return Ok(found(credential, Some(&program)));
                    }
                    return Ok(Looked::Nothing(format!(
                        "{shown} (its {} has none)",
                        program.name()
                    )));
                }
                None if listed.in_store => {
                    return Err(CredentialError::ProgramMissing {
                        program: format!("docker-credential-{name}"),
                        config: place.path.clone(),
                        registry: registry.to_owned(),
                    });
                }
                // The file was probably copied from another machine, and it has no entry for this
                // registry.
                None => {
                    return Ok(Looked::Nothing(format!(
                        "{shown} (no entry; its docker-credential-{name} is not installed)"
                    )));
                }
            }
        }
        Ok(Looked::Nothing(format!("{shown} (no entry)")))
    }

    fn program(&self, name: &str, config: &Path) -> Result<Option<Program>, CredentialError> {
        Program::find(name, self.environment.path.as_deref(), config)
    }
}

enum Looked {
    Found(Found),
    /// The place, and why it has no credential.
    Nothing(String),
}

async fn ask(program: &Program, servers: &[String]) -> Result<Option<Credential>, CredentialError> {
    for server in servers {
        if let Some(credential) = program.get(server).await? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

/// The file's content; `None` if the file does not exist and need not exist.
async fn read(place: &CredentialFile) -> Result<Option<Zeroizing<Vec<u8>>>, CredentialError> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let FileContent::Value(value) = &place.content {
        bytes.extend_from_slice(value.expose().as_bytes());
        return Ok(Some(bytes));
    }
    let read = async {
        // Opening a pipe would wait for a writer, so only a file that the user named may be one.
        if matches!(place.content, FileContent::Usual)
            && !tokio::fs::metadata(&place.path).await?.is_file()
        {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        let file = tokio::fs::File::open(&place.path).await?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).await
    };
    match read.await {
        Ok(length) if length as u64 > MAX_FILE => {
            Err(CredentialError::TooLong { path: place.path.clone(), limit: MAX_FILE })
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error)
            if matches!(place.content, FileContent::Usual)
                && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(CredentialError::Read {
            path: place.path.clone(),
            named_by: match place.content {
                FileContent::Named(name) => format!(" (named by {name})"),
                FileContent::Usual | FileContent::Value(_) => String::new(),
            },
            source: Arc::new(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::helper::tests::install;
    use super::*;
    use std::ffi::OsString;

    /// A home folder with a folder for each place, and its own `PATH`.
    struct Machine {
        root: tempfile::TempDir,
        sources: Sources,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| {
                let path = root.path().join(name);
                std::fs::create_dir_all(&path).unwrap();
                path
            };
            let sources = Sources {
                environment: Environment {
                    docker_config: Some(at("docker")),
                    containers_runtime: Some(at("run/containers")),
                    containers_config: Some(at("config/containers")),
                    home: Some(at("home")),
                    path: Some(at("bin").into()),
                    ..Environment::default()
                },
                ..Sources::default()
            };
            Self { root, sources }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        }

        fn program(&self, name: &str, script: &str) {
            install(&self.root.path().join("bin"), name, script);
        }

        async fn find(&self, registry: &str) -> Found {
            self.sources.find(registry, "ns/app").await.unwrap()
        }

        async fn fail(&self, registry: &str) -> String {
            self.sources.find(registry, "ns/app").await.unwrap_err().to_string()
        }
    }

    fn login(user: &str) -> String {
        format!(r#"{{"auths":{{"h.example":{{"username":"{user}","password":"p"}}}}}}"#)
    }

    #[tokio::test]
    async fn a_pipe_in_a_usual_place_is_an_error_and_not_waited_for() {
        let machine = Machine::new();
        let pipe = machine.root.path().join("docker/config.json");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let limit = std::time::Duration::from_secs(10);
        let failed = tokio::time::timeout(limit, machine.fail("h.example")).await.unwrap();
        assert!(failed.contains("not a regular file"), "{failed}");
        assert!(failed.contains("docker/config.json"), "{failed}");
    }

    #[tokio::test]
    async fn the_first_place_that_has_a_credential_wins() {
        let mut machine = Machine::new();
        machine.write("home/.docker/config.json", &login("home"));
        let expect = async |machine: &Machine, user: &str, origin: &str| {
            let found = machine.find("h.example").await;
            assert_eq!(found.credential, Some(Credential::from_login(user, Secret::new("p"))));
            assert!(found.origin.ends_with(origin), "{}", found.origin);
        };
        expect(&machine, "home", "/home/.docker/config.json").await;
        machine.write("config/containers/auth.json", &login("config"));
        expect(&machine, "config", "/config/containers/auth.json").await;
        machine.write("run/containers/auth.json", &login("run"));
        expect(&machine, "run", "/run/containers/auth.json").await;
        machine.write("docker/config.json", &login("docker"));
        expect(&machine, "docker", "/docker/config.json").await;
        machine.sources.environment.docker_auth_config = Some(Secret::new(login("value")));
        expect(&machine, "value", "from $DOCKER_AUTH_CONFIG").await;
        machine.sources.environment.registry_auth_file =
            Some(machine.write("env.json", &login("env")));
        expect(&machine, "env", "/env.json").await;
        machine.sources.auth_file = Some(machine.write("flag.json", &login("flag")));
        expect(&machine, "flag", "/flag.json").await;
        machine.sources.explicit = Some(("me".into(), Secret::new("p")));
        expect(&machine, "me", "from --username").await;
    }

    #[tokio::test]
    async fn a_place_that_says_nothing_of_the_registry_is_passed_over() {
        let mut machine = Machine::new();
        machine.sources.auth_file = Some(machine.write("flag.json", r#"{"auths":{"x":{}}}"#));
        machine.write("docker/config.json", "");
        machine.write("home/.docker/config.json", &login("home"));
        let found = machine.find("h.example").await;
        assert!(found.origin.ends_with("/home/.docker/config.json"));
    }

    #[tokio::test]
    async fn finding_nothing_tells_every_place() {
        let mut machine = Machine::new();
        let file = machine.write("docker/config.json", "{}");
        let found = machine.find("other.example").await;
        assert_eq!(found.credential, None);
        for part in [
            "no credentials for other.example were found in",
            "/docker/config.json (no entry)",
            "/run/containers/auth.json (does not exist)",
            "/config/containers/auth.json (does not exist)",
            "/home/.docker/config.json (does not exist)",
        ] {
            assert!(found.origin.contains(part), "{}", found.origin);
        }
        machine.sources.environment.docker_config = Some(file);
        let found = machine.find("other.example").await;
        assert!(found.origin.contains("/config.json is a file, not a folder)"), "{}", found.origin);
        let nowhere = Sources::default().find("h", "r").await.unwrap();
        assert!(nowhere.origin.contains("HOME"), "{}", nowhere.origin);
    }

    #[tokio::test]
    async fn a_file_that_the_user_named_must_exist_and_be_whole() {
        let mut machine = Machine::new();
        machine.sources.auth_file = Some(machine.root.path().join("absent.json"));
        let error = machine.fail("h.example").await;
        assert!(error.contains("absent.json") && error.contains("--auth-file"), "{error}");
        machine.sources.auth_file = None;
        machine.sources.environment.registry_auth_file = Some(machine.root.path().to_owned());
        let error = machine.fail("h.example").await;
        assert!(error.contains("$REGISTRY_AUTH_FILE"), "{error}");
    }

    #[tokio::test]
    async fn a_broken_file_in_its_usual_place_is_told_by_name() {
        let machine = Machine::new();
        let path = machine.write("docker/config.json", "{");
        let error = machine.fail("h.example").await;
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[tokio::test]
    async fn a_broken_value_is_told_by_its_variable_and_its_field() {
        let mut machine = Machine::new();
        machine.write("docker/config.json", &login("file"));
        for (value, said) in [
            (r#"{"auths":{"h.example":{"auth":["hunter2"]}}}"#, "must be a string, and is a list"),
            ("hunter2", "it is not JSON"),
        ] {
            machine.sources.environment.docker_auth_config = Some(Secret::new(value));
            let error = machine.fail("h.example").await;
            assert!(error.contains("$DOCKER_AUTH_CONFIG") && error.contains(said), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_files_of_podman_and_skopeo_are_where_the_environment_says() {
        let of = |variables: &[(&str, &str)]| {
            let value = |name: &str| {
                variables.iter().find(|(it, _)| *it == name).map(|(_, value)| value.into())
            };
            let found = Environment::of(value, 1000);
            let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
            (shown(found.containers_runtime), shown(found.containers_config))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[]), (some("/run/containers/1000"), None));
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "")]),
            (some("/run/containers/1000"), some("/h/.config/containers"))
        );
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c")]),
            (some("/r/containers"), some("/c/containers"))
        );
    }

    #[tokio::test]
    async fn a_value_that_is_not_utf8_is_read_as_go_reads_it() {
        use std::os::unix::ffi::OsStringExt;
        let value = [br#"{"x":"#, &b"\"\xff\","[..], &login("value").as_bytes()[1..]].concat();
        let of =
            |name: &str| (name == "DOCKER_AUTH_CONFIG").then(|| OsString::from_vec(value.clone()));
        let mut machine = Machine::new();
        machine.sources.environment.docker_auth_config =
            Environment::of(of, 1000).docker_auth_config;
        assert_eq!(machine.find("h.example").await.origin, "from $DOCKER_AUTH_CONFIG");
    }

    #[tokio::test]
    async fn a_file_without_end_is_not_read_to_its_end() {
        let mut machine = Machine::new();
        machine.sources.auth_file = Some("/dev/zero".into());
        let error = machine.fail("h.example").await;
        assert!(error.contains("8 MiB"), "{error}");
    }

    #[tokio::test]
    async fn the_registrys_own_program_is_asked_before_the_file() {
        let machine = Machine::new();
        machine.write(
            "docker/config.json",
            r#"{"auths":{"h.example":{"username":"file","password":"p"}},
                "credHelpers":{"h.example":"one"},"credsStore":"all"}"#,
        );
        machine.program("one", r#"echo '{"Username":"one","Secret":"s"}'"#);
        let found = machine.find("h.example").await;
        assert_eq!(found.credential, Some(Credential::from_login("one", Secret::new("s"))));
        assert!(found.origin.contains("docker-credential-one named in"), "{}", found.origin);

        machine.program("one", "echo credentials not found in native keychain; exit 1");
        let found = machine.find("h.example").await;
        assert_eq!(found.credential, Some(Credential::from_login("file", Secret::new("p"))));
    }

    #[tokio::test]
    async fn the_store_is_asked_by_each_name_that_the_registry_was_given() {
        let machine = Machine::new();
        machine.write(
            "docker/config.json",
            r#"{"auths":{"https://h.example/v1/":{}},"credsStore":"all"}"#,
        );
        machine.program(
            "all",
            r#"read server; case "$server" in
                https://h.example/v1/) echo '{"Username":"u","Secret":"s"}' ;;
                *) echo credentials not found in native keychain; exit 1 ;;
            esac"#,
        );
        assert_eq!(
            machine.find("h.example").await.credential,
            Some(Credential::from_login("u", Secret::new("s")))
        );
        let none = machine.find("other.example").await;
        assert!(none.origin.contains("its docker-credential-all has none"), "{}", none.origin);
    }

    #[tokio::test]
    async fn a_missing_store_matters_only_to_who_logged_in_with_it() {
        let machine = Machine::new();
        machine.write("docker/config.json", r#"{"auths":{"h.example":{}},"credsStore":"desktop"}"#);
        let error = machine.fail("h.example").await;
        assert!(
            error.contains("docker-credential-desktop") && error.contains("docker/config.json"),
            "{error}"
        );
        let none = machine.find("other.example").await;
        assert!(
            none.origin.contains("docker-credential-desktop is not installed"),
            "{}",
            none.origin
        );
    }

    #[tokio::test]
    async fn a_program_named_by_a_path_is_not_run() {
        let machine = Machine::new();
        machine.write("docker/config.json", r#"{"credHelpers":{"h.example":"../bin/one"}}"#);
        machine.program("one", "touch \"${0%/*}/ran\"");
        let error = machine.fail("h.example").await;
        assert!(error.contains("../bin/one"), "{error}");
        assert!(!machine.root.path().join("bin/ran").exists());
    }

    #[tokio::test]
    async fn the_fly_token_is_for_flys_registry_and_comes_last() {
        let mut machine = Machine::new();
        machine.sources.environment.fly_access_token = Some(Secret::new("  "));
        machine.sources.environment.fly_api_token = Some(Secret::new("FlyV1 fm2_a,oauth"));
        let found = machine.find("registry.fly.io").await;
        assert_eq!(
            found,
            Found {
                credential: Some(Credential::from_login("x", Secret::new("fm2_a"))),
                origin: "from $FLY_API_TOKEN".into(),
            }
        );
        machine.sources.environment.fly_access_token = Some(Secret::new("fm2_b"));
        assert_eq!(machine.find("registry.fly.io").await.origin, "from $FLY_ACCESS_TOKEN");
        assert_eq!(machine.find("h.example").await.credential, None);
        assert_eq!(machine.find("registry.fly.io.evil.test").await.credential, None);
        machine
            .write("home/.docker/config.json", r#"{"auths":{"registry.fly.io":{"auth":"eDpw"}}}"#);
        assert!(machine.find("registry.fly.io").await.origin.ends_with("config.json"));
    }

    #[test]
    fn no_debug_format_shows_a_secret() {
        let sources = Sources {
            explicit: Some(("me".into(), Secret::new("hunter2"))),
            auth_file: None,
            environment: Environment {
                fly_access_token: Some(Secret::new("hunter2")),
                fly_api_token: Some(Secret::new("hunter2")),
                ..Environment::default()
            },
        };
        let config = DockerConfig::parse(
            Path::new("/c"),
            br#"{"auths":{"h":{"auth":"dTpodW50ZXIy","password":"hunter2",
                "identitytoken":"hunter2","registrytoken":"hunter2"}}}"#,
        )
        .unwrap();
        let listed = config.lookup("h", "r").unwrap();
        let found = Found { credential: listed.credential.clone(), origin: "from /c".into() };
        for text in [
            format!("{sources:?} {sources:#?}"),
            format!("{config:?} {config:#?}"),
            format!("{listed:?} {listed:#?}"),
            format!("{found:?} {found:#?} {found}"),
        ] {
            assert!(text.contains("***") || !text.contains("Secret"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("dTpod"), "{text}");
        }
    }
}
