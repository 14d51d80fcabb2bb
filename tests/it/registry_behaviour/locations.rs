//! Upload locations and redirects: followed in every form, without a credential for another host.

use super::*;

#[test]
fn locations_in_every_form_are_followed() {
    for form in [
        LocationForm::Absolute,
        LocationForm::Relative,
        LocationForm::Foreign,
        LocationForm::Portless,
    ] {
        let bench = Bench::new();
        bench.proxy.set_locations(form);
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::refused_method()).first(1)]);
        bench.pushed(&image, &[]);
        // Debian's puts `_state` into the query.
        let docker = DockerRegistry::plain();
        let proxy = FaultProxy::before(docker.addr());
        proxy.set_locations(form);
        Pushimg::new()
            .run([image.display().to_string(), format!("{}/app:v1", proxy.host())])
            .success();
        pull::assert_same_image(&image, docker.addr(), "app", "v1");
        assert_eq!(docker.open_uploads("app"), 0);
    }
}

#[test]
fn no_credential_follows_a_redirect_or_a_location_to_another_host() {
    let login = "Basic dXNlcjpodW50ZXIy";
    let registry = DevRegistry::start(registry::Options {
        auth: registry::basic("user", "hunter2"),
        ..Default::default()
    });
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions {
            foreign_authorization: Some(Arc::new(move |_| login.to_owned())),
            ..Default::default()
        },
    );
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB), Layer::random("b", 2, MIB)])
        .write(dir.path(), "image.tar");
    let machine = Pushimg::new().login(&proxy.host(), "user", "hunter2");
    let steps = [
        Step::ManifestGet,
        Step::ConfigGet,
        Step::BlobHead,
        Step::UploadPost,
        Step::UploadPatch,
        Step::UploadPut,
        Step::ManifestPut,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("{}/app:v1", proxy.host());
        machine.run([image.display().to_string(), name.clone()]).success();
        proxy.clear();
        proxy.set_rules(vec![Rule::at(step, Fault::redirect())]);
        if step == Step::UploadPatch {
            proxy.add_rule(Rule::at(Step::UploadPut, Fault::refused_method()).first(1));
        }
        if step == Step::UploadPut {
            proxy.set_locations(LocationForm::Foreign);
        }
        let next = ImageBuilder::new(vec![
            Layer::random("a", 1, MIB),
            Layer::random("c", 10 + number as u64, MIB),
        ])
        .write(dir.path(), "next.tar");
        // With a cache, pushimg would not GET the config.
        machine.run([next.display().to_string(), name, "--no-cache".to_owned()]).success();
        proxy.heal();
        pull::assert_same_image(
            &next,
            Remote::new(registry.addr()).login("user", "hunter2"),
            "app",
            "v1",
        );
        let records = proxy.records();
        let (there, here): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.origin == Origin::Foreign);
        assert!(!there.is_empty(), "{step:?} was not redirected\n{}", proxy.transcript());
        assert!(there.iter().all(|record| record.header("authorization").is_none()), "{step:?}");
        assert!(here.iter().any(|record| record.header("authorization") == Some(login)));
    }
}

#[test]
fn a_location_from_https_to_plain_http_is_refused() {
    let authority = crate::support::tls::Authority::new();
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { tls: Some(&authority), ..Default::default() },
    );
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    let location = format!("http://{}/v2/app/blobs/uploads/1", registry.addr());
    let set = Change::Set("location".to_owned(), location);
    proxy.set_rules(vec![Rule::at(Step::UploadPost, rewrite(set))]);
    let ca = format!("--ca-file={}", authority.ca_file().display());
    Pushimg::new()
        .run([image.display().to_string(), format!("{}/app:v1", proxy.host()), ca])
        .exits(5)
        .says("leads from HTTPS to plain HTTP");
}
