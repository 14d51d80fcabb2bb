//! Every kind of fault at every step of a push, once, twice and always. There are two permitted
//! outcomes: the push succeeds and the image reads back whole, or it ends with a documented exit
//! code and a message that names the step and the host, and the tag is as it was.
//!
//! A share of the cases runs by default, all of them with `PUSHIMG_TEST_FULL=1`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::*;
use tempfile::TempDir;

/// Limits of the program in these runs, in seconds.
const RETRY_FOR: u64 = 2;
const IDLE: u64 = 1;
/// A run that takes longer is considered to hang. In the worst case, several steps each use up
/// their retry time.
const LIMIT: Duration = Duration::from_secs(45);
/// Pushes at the same time; they mostly wait.
const AT_ONCE: usize = 8;
/// By default, one of this many cases is run.
const SHARE: usize = 11;

const USER: &str = "pushimg";
const PASSWORD: &str = "correct horse";

/// The steps of a push that a fault can strike at.
const STEPS: [Step; 10] = [
    Step::ManifestGet,
    Step::ConfigGet,
    Step::TokenGet,
    Step::BlobHead,
    Step::UploadPost,
    Step::UploadPut,
    Step::UploadPatch,
    Step::UploadStatus,
    Step::MountPost,
    Step::ManifestPut,
];

/// A fault, the step that it strikes, and how often.
#[derive(Clone)]
struct Case {
    name: &'static str,
    fault: Fault,
    step: Step,
    times: Times,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (name, fault) in Fault::catalogue() {
            for step in STEPS {
                for times in [Times::First(1), Times::First(2), Times::Every] {
                    cases.push(Self { name, fault: fault.clone(), step, times });
                }
            }
        }
        cases
    }
}

/// Faults that pushimg cannot overcome with a single retry.
const LASTING: [&str; 10] = [
    "400",
    "401-no-token-helps",
    "403",
    "404",
    "405",
    "413",
    "416",
    "200-html",
    "body-cap",
    "no-location",
];

impl Case {
    /// Whether the push must succeed in spite of the fault.
    fn passes(&self) -> bool {
        // At these steps such an answer is final.
        let last_word = match self.name {
            "lost-session" => !matches!(self.step, Step::UploadPatch | Step::UploadPut),
            "mount-202" | "redirect" | "answers-204" => self.step == Step::TokenGet,
            _ => false,
        };
        self.times == Times::First(1) && !LASTING.contains(&self.name) && !last_word
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:?}, {:?}", self.name, self.step, self.times)
    }
}

/// The archives that all cases push.
struct Images {
    dir: TempDir,
    /// What the tag points to before.
    before: PathBuf,
    /// The image to push. It shares one layer with `before` and one with `base`.
    next: PathBuf,
    /// Its layers are in `team/base`.
    base: PathBuf,
}

impl Images {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let shared = Layer::text("base-1.0", 1, 300_000);
        let mounted = Layer::random("other-1.0", 2, 200_000);
        let before = ImageBuilder::new(vec![shared.clone(), Layer::random("app-1.0", 3, 100_000)]);
        // So large that pushimg asks how much arrived instead of sending the layer again.
        let new = Layer::random("app-1.1", 4, 1_500_000);
        let next = ImageBuilder::new(vec![shared, mounted.clone(), new]);
        let base = ImageBuilder::new(vec![mounted]);
        Self {
            before: before.write(dir.path(), "before.tar"),
            next: next.write(dir.path(), "next.tar"),
            base: base.write(dir.path(), "base.tar"),
            dir,
        }
    }

    fn folder(&self) -> &Path {
        self.dir.path()
    }
}

/// A registry with a proxy before it, for one push after another.
enum Lab {
    /// The development registry. It can resume uploads and issues its own tokens.
    Dev(DevRegistry),
    /// Debian's, with a token server.
    Docker(DockerRegistry, #[expect(dead_code, reason = "serves as long as it lives")] TokenServer),
}

impl Lab {
    fn start(docker: bool) -> (Self, FaultProxy) {
        if !docker {
            let auth = registry::bearer(USER, PASSWORD, Duration::from_secs(300));
            let dev = DevRegistry::start(registry::Options { auth, ..Default::default() });
            let proxy = FaultProxy::start(
                dev.addr(),
                &ProxyOptions {
                    foreign_authorization: Some(foreign_token(dev.addr())),
                    ..Default::default()
                },
            );
            return (Self::Dev(dev), proxy);
        }
        let tokens = TokenServer::start(TokenOptions::default());
        let registry = DockerRegistry::token(&tokens);
        let sign = tokens.signer();
        let proxy = FaultProxy::start(
            registry.addr(),
            &ProxyOptions {
                token_upstream: Some(tokens.addr()),
                foreign_authorization: Some(Arc::new(move |path| {
                    let scopes = scopes_of(path);
                    format!("Bearer {}", sign(&scopes))
                })),
                ..Default::default()
            },
        );
        (Self::Docker(registry, tokens), proxy)
    }

    fn addr(&self) -> std::net::SocketAddr {
        match self {
            Self::Dev(dev) => dev.addr(),
            Self::Docker(registry, _) => registry.addr(),
        }
    }

    fn tag(&self, repository: &str) -> Option<String> {
        match self {
            Self::Dev(dev) => dev.tag(repository, "latest"),
            Self::Docker(registry, _) => registry.tag(repository, "latest"),
        }
    }
}

/// The scopes `repository:<name>:pull,push` for a path, and pull for the source of a mount.
fn scopes_of(path: &str) -> String {
    let name = path.trim_start_matches("/v2/");
    let end = ["/blobs/", "/manifests/"].iter().filter_map(|mark| name.find(mark)).min();
    let name = &name[..end.unwrap_or(name.len())];
    format!("repository:{name}:pull,push repository:team/base:pull")
}

/// Fetches tokens of the development registry for the foreign origin.
fn foreign_token(addr: std::net::SocketAddr) -> ForeignAuthorization {
    Arc::new(move |path| {
        let scopes: String =
            url::form_urlencoded::byte_serialize(scopes_of(path).as_bytes()).collect();
        let auth = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
        };
        let answer = http_get(addr, &format!("/token?scope={scopes}"), &auth);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        format!("Bearer {}", json["token"].as_str().unwrap_or_default())
    })
}

/// A minimal HTTP client. It has no runtime, because the caller may be on any kind of thread.
fn http_get(addr: std::net::SocketAddr, path: &str, basic: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(addr) else {
        return String::new();
    };
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nAuthorization: Basic {basic}\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Runs one case in a repository of its own; the error tells what went wrong.
fn run(
    case: &Case,
    number: usize,
    lab: &Lab,
    proxy: &FaultProxy,
    images: &Images,
) -> Result<Option<i32>, String> {
    let repository = format!("case/{number}");
    let direct = Remote::new(lab.addr()).login(USER, PASSWORD);
    let machine = Pushimg::new().limit(LIMIT).login(&proxy.host(), USER, PASSWORD);
    let settings = [format!("--retry-for={RETRY_FOR}s"), format!("--idle-timeout={IDLE}s")];
    let push = |archive: &Path, name: &str, more: &[&str]| {
        let mut args: Vec<String> = vec![archive.display().to_string(), name.to_owned()];
        args.extend(settings.iter().cloned());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        machine.run(args)
    };
    proxy.heal();
    let name = format!("{}/{repository}:latest", proxy.host());
    push(&images.before, &name, &["--no-cache"]).success();
    let before = lab.tag(&repository);

    proxy.clear();
    proxy.set_rules(vec![Rule { times: case.times, ..Rule::at(case.step, case.fault.clone()) }]);
    if matches!(case.step, Step::UploadPatch | Step::UploadStatus) {
        // A push uses these steps only after an upload was refused or broke off.
        let detour = match case.step {
            Step::UploadPatch => Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
            _ => Rule::at(
                Step::UploadPut,
                Fault::CutRequest { at: At::Percent(90), delivered: true },
            )
            .nth(2),
        };
        proxy.add_rule(detour);
    }
    let reuse = format!("--reuse-from={}/team/base:latest", proxy.host());
    let output = push(&images.next, &name, &["--no-cache", &reuse]);
    proxy.heal();

    let after = lab.tag(&repository);
    let fail = |what: &str| {
        Err(format!("{what}\nbefore {before:?}, after {after:?}\n{output}\n{}", proxy.transcript()))
    };
    if output.timed_out {
        return fail("did not end in time");
    }
    if output.stderr.contains("panicked at") {
        return fail("panicked");
    }
    if case.passes() && output.code() != Some(0) {
        return fail("what passes when tried again made the push fail");
    }
    match output.code() {
        Some(0) => {
            let digest = output.stdout.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned());
            if after != digest {
                return fail("said it was pushed, and the tag is another");
            }
            let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pull::assert_same_image(&images.next, direct.clone(), &repository, "latest");
                if full() || number.is_multiple_of(10) {
                    pull::skopeo(direct, &repository, "latest");
                }
            }));
            if whole.is_err() {
                return fail("said it was pushed, and the image is not whole");
            }
        }
        Some(4 | 5) => {
            if after != before {
                return fail("failed, and the tag is not as it was");
            }
            if let Some(what) = unclear(&output, proxy) {
                return fail(&what);
            }
        }
        _ => return fail("an exit code that is not documented for this"),
    }
    let leaks = [PASSWORD, "Bearer ey", "_state=ey"];
    if let Some(leak) = leaks.iter().find(|text| output.stderr.contains(**text)) {
        return fail(&format!("{leak} on stderr"));
    }
    Ok(output.code())
}

/// What the error message of a failed push does not say but should; `None` if it is clear.
fn unclear(output: &Output, proxy: &FaultProxy) -> Option<String> {
    let Some(error) = output.stderr.lines().find(|line| line.starts_with("error: ")) else {
        return Some("no error is told".to_owned());
    };
    if !error.contains(&proxy.addr().ip().to_string()) {
        return Some("the error names no host".to_owned());
    }
    let steps = ["upload", "ask", "put the manifest", "get ", "reach", "log in to"];
    let named = steps.iter().any(|step| error.contains(&format!("cannot {step}")));
    (!named).then(|| "the error names no step".to_owned())
}

fn full() -> bool {
    std::env::var_os("PUSHIMG_TEST_FULL").is_some_and(|value| value == "1")
}

#[test]
fn every_fault_at_every_step_ends_in_a_push_or_in_a_clear_error() {
    let began = Instant::now();
    let images = Images::new();
    let chosen: Vec<(usize, Case)> = match std::env::var("PUSHIMG_MATRIX_ONLY") {
        Ok(wanted) => Case::all()
            .into_iter()
            .enumerate()
            .filter(|(_, case)| case.to_string().contains(&wanted))
            .collect(),
        // SHARE is a prime number, so the sample contains every fault, step and frequency.
        Err(_) => Case::all()
            .into_iter()
            .enumerate()
            .filter(|(number, _)| full() || number.is_multiple_of(SHARE))
            .collect(),
    };
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(String, Option<i32>, usize)>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (chosen, images, next) = (&chosen, &images, &next);
            let (outcomes, failures) = (&outcomes, &failures);
            scope.spawn(move || {
                let (lab, proxy) = Lab::start(worker % 2 == 1);
                Pushimg::new()
                    .login(&proxy.host(), USER, PASSWORD)
                    .run([
                        images.base.display().to_string(),
                        format!("{}/team/base:latest", proxy.host()),
                    ])
                    .success();
                while let Some((number, case)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(case, *number, &lab, &proxy, images);
                    let fault = format!("{:?}", case.fault);
                    let struck = proxy.count(|record| record.fault.as_ref() == Some(&fault));
                    match outcome {
                        Ok(code) => {
                            outcomes.lock().unwrap().push((case.to_string(), code, struck));
                        }
                        Err(what) => failures
                            .lock()
                            .unwrap()
                            .push(format!("=== case {number}: {case}: {what}")),
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let failures = failures.into_inner().unwrap();
    let with = |wanted: i32| outcomes.iter().filter(|(_, code, _)| *code == Some(wanted)).count();
    let struck = outcomes.iter().filter(|(_, _, struck)| *struck > 0).count();
    for (case, _, _) in outcomes.iter().filter(|(_, _, struck)| *struck == 0) {
        println!("no request for it to strike: {case}");
    }
    println!(
        "{} cases of {} in {:.0} s: {} pushed, {} refused (4), {} failed (5), {} neither; \
         faults struck in {struck}",
        chosen.len(),
        Case::all().len(),
        began.elapsed().as_secs_f64(),
        with(0),
        with(4),
        with(5),
        failures.len(),
    );
    assert!(images.folder().exists());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
