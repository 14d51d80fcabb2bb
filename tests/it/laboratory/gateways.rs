//! nginx, HAProxy and the SOCKS proxy do what their options say.

use super::*;

#[test]
fn gateways_do_what_their_options_say() {
    let authority = Authority::new();
    let registry = DockerRegistry::plain();
    let options = |tls| GatewayOptions {
        tls,
        body_limit: Some(1 << 20),
        refused_method: Some("PATCH"),
        ..Default::default()
    };
    let root = std::fs::read(authority.ca_file()).expect("ca.crt");
    let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
    for (scheme, tls) in [("http", None), ("https", Some(&authority))] {
        let nginx = Nginx::before(registry.addr(), &options(tls));
        let haproxy = HaProxy::before(registry.addr(), &options(tls));
        for (host, name) in [(nginx.host(), "nginx"), (haproxy.host(), "haproxy")] {
            pull::on_runtime(async {
                tls::install_provider();
                let client = Client::builder().no_proxy().tls_certs_only([root.clone()]);
                let client = client.build().expect("an HTTP client");
                let answer = client.post(format!("{scheme}://{host}/v2/lab/blobs/uploads/"));
                let answer = answer.send().await.expect("an answer to POST");
                assert_eq!(answer.status(), StatusCode::ACCEPTED, "{name}");
                // The registry knows the host, but not that the client spoke TLS.
                let location = header(&answer, "location").expect("a location");
                assert!(location.starts_with(&format!("http://{host}/")), "{name}: {location}");
                let location = location.replace("http://", &format!("{scheme}://"));
                let status = async |method: Method, length: usize| {
                    // If the gateway closes before it has read the body, its answer may be lost.
                    for _ in 0..10 {
                        let url = with_digest(&location, "sha256:0");
                        let request = client.request(method.clone(), url);
                        if let Ok(answer) = request.body(vec![0; length]).send().await {
                            return answer.status();
                        }
                    }
                    panic!("{name}: no answer to {method}");
                };
                assert_eq!(status(Method::PATCH, 10).await, StatusCode::METHOD_NOT_ALLOWED);
                let long = status(Method::PUT, (1 << 20) + 1).await;
                assert_eq!(long, StatusCode::PAYLOAD_TOO_LARGE, "{name}");
                let passed = status(Method::PUT, 1 << 20).await;
                // The registry refuses the digest before it has read all, which a gateway that is
                // still sending may take for a broken connection.
                let refused = [StatusCode::BAD_REQUEST, StatusCode::BAD_GATEWAY];
                assert!(refused.contains(&passed), "{name}: {passed}: sha256:0 is no digest");
            });
        }
        for requests in [nginx.requests(), haproxy.requests()] {
            let first = requests.first().expect("a request");
            assert_eq!(first, "POST /v2/lab/blobs/uploads/ 202", "{requests:#?}");
            assert!(requests.len() >= 4, "{requests:#?}");
        }
    }
}

#[test]
fn gateways_refuse_more_requests_than_they_allow() {
    let registry = DockerRegistry::plain();
    let options = GatewayOptions { requests_per_second: Some(5), ..Default::default() };
    let nginx = Nginx::before(registry.addr(), &options);
    let haproxy = HaProxy::before(registry.addr(), &options);
    pull::on_runtime(async {
        for host in [nginx.host(), haproxy.host()] {
            let mut refused = 0;
            for _ in 0..20 {
                let answer = client().get(format!("http://{host}/v2/")).send().await;
                let answer = answer.expect("an answer");
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    assert_eq!(header(&answer, "retry-after").as_deref(), Some("1"));
                    refused += 1;
                }
            }
            assert!(refused > 0, "{host}");
        }
    });
}

#[test]
fn the_socks_proxy_connects_and_says_where_to() {
    let registry = DockerRegistry::plain();
    for proxy in [SocksProxy::open(), SocksProxy::with_login("user", "secret")] {
        let url = format!("http://{}/v2/", registry.addr());
        let answer = run::program("curl", ["-sS", "--proxy", &proxy.url(), &url]);
        assert_eq!(answer, "{}");
        assert_eq!(proxy.connections(), [registry.host()]);
    }
}
