//! Until the first challenge arrives, pushimg sends only one request.

use super::*;

#[test]
fn before_the_first_challenge_one_request_asks() {
    for options in [bearer(), basic()] {
        let scene = Scene::with(options);
        let image = many_layers(&scene.dir);
        let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
        for _ in 0..2 {
            scene.proxy.clear();
            push(&machine, &image, &scene.proxy.host(), &[]).success();
            let refused = scene.proxy.count(|record| record.status == Some(401));
            assert_eq!(refused, 1, "{}", scene.proxy.transcript());
        }
    }
}

/// Passes connections on to a server, and counts those that do not begin with a TLS handshake.
fn counting_relay(upstream: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let plain = Arc::new(AtomicUsize::new(0));
    let counter = plain.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut first = [0];
            let counter = counter.clone();
            std::thread::spawn(move || {
                if client.peek(&mut first).is_ok_and(|count| count == 1) && first[0] != 22 {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                let server = TcpStream::connect(upstream).expect("the server");
                let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in ways {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            });
        }
    });
    (addr, plain)
}

#[test]
fn a_loopback_port_that_speaks_tls_is_asked_in_the_open_once() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::tls(&authority);
    let image = many_layers(&dir);
    let machine = Pushimg::new();
    for (number, code) in [(1, 0), (2, 0), (3, 5)] {
        let (addr, plain) = counting_relay(registry.addr());
        let trust: &[&str] = if code == 0 { &["--insecure-skip-tls-verify"] } else { &[] };
        push(&machine, &image, &addr.to_string(), trust).exits(code);
        assert_eq!(plain.load(Ordering::Relaxed), 1, "push {number}");
    }
}
