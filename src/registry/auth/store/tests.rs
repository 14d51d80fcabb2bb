//! Files that logins are written to, and the programs that keep them.

use std::os::unix::fs::PermissionsExt;

use super::super::credential::Credential;
use super::super::helper::tests::install;
use super::*;

/// A folder with `config.json` and a folder of programs.
struct Machine {
    root: tempfile::TempDir,
    sources: Sources,
}

impl Machine {
    fn new(config: Option<&str>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut sources = Sources::default();
        sources.environment.docker_config = Some(root.path().join("docker"));
        sources.environment.path = Some(root.path().into());
        let machine = Self { root, sources };
        if let Some(config) = config {
            std::fs::create_dir(machine.root.path().join("docker")).unwrap();
            std::fs::write(machine.config(), config).unwrap();
        }
        machine
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("docker/config.json")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    async fn keep(&self, registry: &str, user: &str) -> Result<String, CredentialError> {
        keep(registry, user, &Secret::new("pass word"), &self.sources).await
    }

    async fn user(&self, registry: &str) -> Option<Credential> {
        self.sources.find(registry, "a").await.unwrap().credential
    }
}

fn login(user: &str) -> Option<Credential> {
    Some(Credential::from_login(user, Secret::new("pass word")))
}

#[tokio::test]
async fn a_login_is_kept_in_a_file_for_its_owner_alone() {
    let machine = Machine::new(None);
    let place = machine.keep("r.example:5000", "me").await.unwrap();
    assert_eq!(place, machine.config().display().to_string());
    assert_eq!(machine.user("r.example:5000").await, login("me"));
    assert_eq!(
        machine.text(),
        "{\n\t\"auths\": {\n\t\t\"r.example:5000\": {\"auth\":\"bWU6cGFzcyB3b3Jk\"}\n\t}\n}\n"
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&machine.config()), 0o600);
    assert_eq!(mode(machine.config().parent().unwrap()), 0o700);

    machine.keep("docker.io", "hub").await.unwrap();
    assert!(machine.text().contains("\"https://index.docker.io/v1/\": {"));
    machine.keep("r.example:5000", "other").await.unwrap();
    assert_eq!(machine.user("r.example:5000").await, login("other"));
    assert_eq!(machine.user("docker.io").await, login("hub"));

    let gone = logout("r.example:5000", &machine.sources).await.unwrap();
    assert_eq!(gone, Some(machine.config().display().to_string()));
    assert_eq!(machine.user("r.example:5000").await, None);
    assert_eq!(machine.user("docker.io").await, login("hub"));
    assert_eq!(logout("r.example:5000", &machine.sources).await.unwrap(), None);
}

#[tokio::test]
async fn everything_else_in_the_file_stays_as_it_is() {
    let machine = Machine::new(Some(
        "{\"z\": 1.50, \"HttpHeaders\": {\"b\" :\"\\u00e9\",\"a\":[1,  2]},\n \"auths\": {\
         \"b.example\": {\"auth\": \"eDp5\", \"email\": \"a@b\"}, \"a.example\": {}}, \"k\": null}",
    ));
    machine.keep("r.example", "me").await.unwrap();
    assert_eq!(
        machine.text(),
        "{\n\t\"z\": 1.50,\n\t\"HttpHeaders\": {\"b\" :\"\\u00e9\",\"a\":[1,  2]},\n\t\"auths\": \
         {\n\t\t\"b.example\": {\"auth\": \"eDp5\", \"email\": \"a@b\"},\n\t\t\"a.example\": {},\
         \n\t\t\"r.example\": {\"auth\":\"bWU6cGFzcyB3b3Jk\"}\n\t},\n\t\"k\": null\n}\n"
    );
    for empty in ["", "{}", " \n", "{\"auths\": null}", "{\"Auths\": {}}"] {
        let machine = Machine::new(Some(empty));
        machine.keep("r.example", "me").await.unwrap();
        assert_eq!(machine.user("r.example").await, login("me"), "{empty}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_changed_is_left_alone_and_named() {
    for text in ["hunter2", "[1]", "{\"auths\": 1}", "{\"auths\": {}", "{} {}"] {
        let machine = Machine::new(Some(text));
        let error = machine.keep("r.example", "me").await.unwrap_err().to_string();
        assert!(error.contains(machine.config().to_str().unwrap()), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("pass word"), "{error}");
        assert_eq!(machine.text(), text);
        assert!(logout("r.example", &machine.sources).await.is_err());
    }
    let machine = Machine::new(None);
    std::fs::create_dir_all(machine.config()).unwrap();
    let error = machine.keep("r.example", "me").await.unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    let nowhere = keep("r", "me", &Secret::new("p"), &Sources::default()).await.unwrap_err();
    assert!(nowhere.to_string().contains("HOME"), "{nowhere}");
}

#[tokio::test]
async fn a_symlink_stays_and_its_target_is_replaced() {
    let machine = Machine::new(Some("{}"));
    let dotfiles = machine.root.path().join("dotfiles");
    std::fs::create_dir(&dotfiles).unwrap();
    std::fs::rename(machine.config(), dotfiles.join("docker.json")).unwrap();
    std::os::unix::fs::symlink("../dotfiles/docker.json", machine.config()).unwrap();
    machine.keep("r.example", "me").await.unwrap();
    assert!(std::fs::symlink_metadata(machine.config()).unwrap().is_symlink());
    assert_eq!(machine.user("r.example").await, login("me"));
    assert!(std::fs::read_to_string(dotfiles.join("docker.json")).unwrap().contains("r.example"));
    // The link's target does not exist yet.
    std::fs::remove_file(dotfiles.join("docker.json")).unwrap();
    machine.keep("r.example", "you").await.unwrap();
    assert_eq!(machine.user("r.example").await, login("you"));
}

#[tokio::test]
async fn of_many_writers_at_once_each_login_is_kept() {
    let machine = Machine::new(Some("{}"));
    let hosts: Vec<_> = (0..20).map(|n| format!("r{n}.example")).collect();
    futures::future::join_all(hosts.iter().map(|host| machine.keep(host, "me"))).await;
    for host in &hosts {
        assert_eq!(machine.user(host).await, login("me"), "{host}");
    }
    let left = std::fs::read_dir(machine.root.path().join("docker")).unwrap().count();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_credential_program_keeps_and_forgets_the_login() {
    let script = r#"d="${0%/*}"
        case "$1" in
            store) cat > "$d/kept" ;;
            erase) cat > "$d/erased"; [ -e "$d/kept" ] || { echo credentials not found in native keychain; exit 1; }; rm "$d/kept" ;;
            get) [ -e "$d/kept" ] && cat "$d/kept" || { echo credentials not found in native keychain; exit 1; } ;;
        esac"#;
    for config in [r#"{"credsStore":"fake"}"#, r#"{"credHelpers":{"r.example":"fake"}}"#] {
        let machine = Machine::new(Some(config));
        install(machine.root.path(), "fake", script);
        let read = |name: &str| std::fs::read_to_string(machine.root.path().join(name)).unwrap();
        let place = machine.keep("r.example", "me").await.unwrap();
        assert!(place.starts_with("docker-credential-fake (named in "), "{place}");
        let kept: serde_json::Value = serde_json::from_str(&read("kept")).unwrap();
        let sent = json!({"ServerURL": "r.example", "Username": "me", "Secret": "pass word"});
        assert_eq!(kept, sent);
        assert!(!machine.text().contains("\"auth\""), "{}", machine.text());
        assert_eq!(machine.user("r.example").await, login("me"));

        assert!(logout("r.example", &machine.sources).await.unwrap().is_some());
        assert_eq!(read("erased"), "r.example");
        assert_eq!(machine.user("r.example").await, None);
        assert_eq!(logout("r.example", &machine.sources).await.unwrap(), None);

        install(machine.root.path(), "fake", "echo the chain is locked; exit 1");
        let error = machine.keep("r.example", "me").await.unwrap_err().to_string();
        assert!(error.contains("the chain is locked") && !error.contains("pass word"), "{error}");
    }
    let machine = Machine::new(Some(r#"{"credsStore":"absent"}"#));
    let error = machine.keep("r.example", "me").await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-absent"), "{error}");
    assert_eq!(machine.text(), r#"{"credsStore":"absent"}"#);
}
