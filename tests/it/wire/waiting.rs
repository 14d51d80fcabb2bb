//! Pauses and answers without an end.

use super::*;

#[test]
fn a_pause_without_end_is_neither_waited_for_nor_a_panic() {
    for seconds in ["18446744073709551615", "99999999999999999999999"] {
        let scene = Scene::with(bearer());
        let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
        for (step, status) in [(Step::TokenGet, 503), (Step::UploadPost, 429)] {
            let answer = Answer::status(status).header("retry-after", seconds);
            scene.rules(vec![Rule::at(step, Fault::Answer(answer))]);
            let output = push(&machine, &scene.image, &scene.proxy.host(), &[]).exits(5);
            assert!(output.took < Duration::from_secs(20), "{output}");
            output.says("a pause of a day or more");
        }
    }
}

/// Answers each request with a body that never ends, a byte at a time.
fn dripping() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = client.read(&mut head);
                let start = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                             content-length: 100000\r\n\r\n";
                let mut sent = client.write_all(start.as_bytes());
                while sent.is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                    sent = client.write_all(b" ");
                }
            });
        }
    });
    addr
}

#[test]
fn a_look_at_the_previous_image_costs_a_few_seconds_whatever_answers() {
    let drip = format!("http://{}/", dripping());
    let faults = [
        Fault::Answer(Answer::status(503).html()),
        Fault::Answer(Answer::status(429).retry_after(1).error("TOOMANYREQUESTS", "slow down")),
        Fault::Answer(Answer::status(429).retry_after(30)),
        Fault::Answer(Answer::status(307).header("location", &drip)),
        Fault::stall(Place::BeforeResponse),
        Fault::stall(Place::ResponseBody(At::Percent(50))),
    ];
    for step in [Step::ManifestGet, Step::ConfigGet] {
        for fault in &faults {
            let scene = Scene::new();
            scene.push(&[]).success();
            scene.rules(vec![Rule::at(step, fault.clone())]);
            let output = scene.push(&["--no-cache"]).success();
            assert!(output.took < Duration::from_secs(9), "{step:?} {fault:?}\n{output}");
        }
    }
}

#[test]
fn a_small_answer_ends_in_time_although_its_bytes_keep_coming() {
    let scene = Scene::new();
    let drip = format!("http://{}/", dripping());
    let to_drip = Fault::Answer(Answer::status(307).header("location", &drip));
    // The registry does not say which manifest it stored, so it is asked.
    scene.rules(vec![
        Rule::at(
            Step::ManifestPut,
            Fault::Rewrite(vec![Change::Remove("docker-content-digest".to_owned())]),
        ),
        Rule::at(Step::ManifestGet, to_drip),
    ]);
    let output = scene.push(&["--idle-timeout=1s", "--retry-for=1s"]).exits(5);
    assert!(output.took < Duration::from_secs(20), "{output}");
    output.says("did not end within 1s");
}
