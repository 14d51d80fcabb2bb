//! `pushimg login` and `pushimg logout`: checked with the registry, kept where other programs look.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::archive::testdata;
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::run::{Pushimg, program};
use crate::support::*;

#[test]
fn a_login_is_checked_and_kept_and_forgotten() {
    let registry = DockerRegistry::basic();
    let host = registry.host();
    let archive = testdata("layered-v1.tar.gz").to_str().expect("UTF-8").to_owned();
    let destination = format!("{host}/team/app:v1");
    let login = ["login", &host, "-u", BASIC_USER, "--password-stdin"];

    let machine = Pushimg::new().stdin("wrong\n");
    let config = machine.home().join("docker/config.json");
    let refused = machine.run(login).exits(4).says(&host).never_says("wrong\n");
    refused.says("check the user name and the password").never_says("log in with");
    assert!(!config.exists());

    let machine = machine.stdin(format!("{BASIC_PASSWORD}\n"));
    machine
        .run(login)
        .success()
        .says(&format!("logged in to {host} as {BASIC_USER}"))
        .says("docker/config.json")
        .never_says(BASIC_PASSWORD);
    let config = machine.home().join("docker/config.json");
    let mode = std::fs::metadata(&config).expect("config.json").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    machine.run([&archive, &destination]).success();

    let file = config.to_str().expect("UTF-8");
    let user = program("skopeo", ["login", "--get-login", "--authfile", file, &host]);
    assert_eq!(user.trim(), BASIC_USER);
    let image = format!("docker://{destination}");
    program("skopeo", ["inspect", "--raw", "--tls-verify=false", "--authfile", file, &image]);

    machine.run(["logout", &host]).success().says("logged out of");
    machine.run([&archive, &destination]).exits(4).says("pushimg login");
    machine.run(["logout", &host]).success().says("there is no login");

    let text = std::fs::read_to_string(&config).expect("config.json");
    std::fs::write(&config, "not JSON").expect("write config.json");
    machine.run(login).exits(1).says("config.json");
    assert_eq!(std::fs::read_to_string(&config).expect("config.json"), "not JSON");
    std::fs::write(&config, text).expect("write config.json");

    let open = DockerRegistry::plain();
    let login = ["login", &open.host(), "-u", "me", "--password-stdin"];
    machine.run(login).success().says("asks for no login: this one is not checked");
}

#[test]
fn a_terminal_is_asked_for_the_password_and_does_not_show_it() {
    let registry = DockerRegistry::basic();
    let host = registry.host();
    let machine = Pushimg::new();
    let pushimg = machine.command(["login", &host, "-u", BASIC_USER]);
    // `script` runs it at a terminal of its own.
    let mut script = Command::new("script");
    for (name, value) in pushimg.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let whole = format!("{} login {host} -u {BASIC_USER}", pushimg.get_program().display());
    script.args(["-qfec", &whole, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("script");
    let (mut input, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take());
    let output = output.as_mut().expect("a pipe");
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(b"Password: ") && output.read(&mut byte).expect("output") == 1 {
        shown.push(byte[0]);
    }
    // pushimg turns off the terminal's echo just after it prints the question.
    std::thread::sleep(Duration::from_millis(500));
    input.write_all(format!("{BASIC_PASSWORD}\n").as_bytes()).expect("write the password");
    output.read_to_end(&mut shown).expect("output");
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(child.wait().expect("an end").success(), "{shown}");
    assert!(shown.contains(&format!("logged in to {host} as {BASIC_USER}")), "{shown}");
    assert!(!shown.contains(BASIC_PASSWORD), "{shown}");
}

#[test]
fn a_signal_at_the_question_for_the_password_leaves_the_terminal_as_it_was() {
    let machine = Pushimg::new();
    let pushimg = machine.command(["login", "registry.invalid", "-u", "me"]);
    // The shell looks at its terminal before and after. Ctrl-C is a byte that the terminal turns into
    // a signal.
    let steps = format!(
        "stty -g; trap : INT; {} login registry.invalid -u me; echo code $?; stty -g",
        pushimg.get_program().display()
    );
    let mut child = Command::new("script")
        .args(["-qfc", &steps, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    let (mut input, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take());
    let output = output.as_mut().expect("a pipe");
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(b"Password: ") && output.read(&mut byte).expect("output") == 1 {
        shown.push(byte[0]);
    }
    std::thread::sleep(Duration::from_millis(500));
    input.write_all(b"\x03").expect("press Ctrl-C");
    output.read_to_end(&mut shown).expect("output");
    child.wait().expect("an end");
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("code 130"), "{shown}");
    let settings: Vec<&str> =
        shown.lines().map(str::trim).filter(|line| line.matches(':').count() > 8).collect();
    assert!(settings.len() == 2 && settings[0] == settings[1], "{shown}");
}

#[test]
fn what_other_programs_wrote_stays_in_the_file_to_the_byte() {
    let registry = DockerRegistry::basic();
    let host = registry.host();
    let machine = Pushimg::new().stdin(format!("{BASIC_PASSWORD}\n"));
    let config = machine.home().join("docker/config.json");
    std::fs::create_dir_all(config.parent().expect("a folder")).expect("create it");
    // Not UTF-8, half a surrogate pair, numbers as somebody wrote them, a field that comes twice.
    let theirs: [&[u8]; 4] = [
        b"\"HttpHeaders\": {\"X-Name\": \"J\xf6rg\"}",
        b"\"detachKeys\": \"\\ud800\"",
        b"\"n\": [1e3, 10000000000000000000000]",
        b"\"n\": null",
    ];
    let auths = b"\"auths\": {\"other.example\": {\"auth\": \"eDp5\", \"by\": \"\xff\"}}";
    let text = [b"{", theirs.join(&b", "[..]).as_slice(), b", ", auths, b"}"].concat();
    std::fs::write(&config, text).expect("write config.json");
    machine.run(["login", &host, "-u", BASIC_USER, "--password-stdin"]).success();
    machine.run(["logout", &host]).success().says("logged out of");
    let text = std::fs::read(&config).expect("config.json");
    let kept = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    for part in theirs.into_iter().chain([&b"\"by\": \"\xff\""[..]]) {
        assert!(kept(part), "{} in {}", part.escape_ascii(), text.escape_ascii());
    }
}

#[test]
fn without_a_terminal_a_password_must_come_by_an_option() {
    let machine = Pushimg::new();
    machine.run(["login", "127.0.0.1:1", "-u", "me"]).exits(2).says("--password-stdin");
    machine.run(["login", "127.0.0.1:1"]).exits(2).says("--password-stdin");
    machine.run(["login", "r.io/app", "-u", "me"]).exits(2).says("give the registry alone");
}
