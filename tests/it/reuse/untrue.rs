//! What a previous image or the registry says may be untrue. That costs time, but never breaks a push.

use std::time::Duration;

use super::{Bench, outcomes, there};
use crate::support::archive::{self, ImageBuilder, Layer, sha256, tar_of, testdata};
use crate::support::proxy::{Answer, Change, Fault, Record, Rule, Step};
use crate::support::pull;
use crate::support::put;
use crate::support::run::{Pushimg, pushed};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};

#[test]
fn blobs_that_the_previous_image_lists_and_the_registry_lost_are_uploaded() {
    let bench = Bench::new();
    bench.push_right(&[]);
    bench.tag_latest();
    let pulled = pull::oci(bench.host(), "app", "v1");
    assert!(bench.registry.remove_blob("app", &pulled.layers[1].digest));
    let report = bench.push_tag("v2", &[]);
    assert_eq!(outcomes(&report), ["previous-image", "uploaded", "previous-image"]);
    // The config is gone too.
    assert!(bench.registry.remove_blob("app", &pulled.layers[0].digest));
    assert!(bench.registry.remove_blob("app", &sha256(&pulled.config)));
    let report = bench.push_tag("v3", &["--no-cache"]);
    assert_eq!(outcomes(&report), ["uploaded", "previous-image", "previous-image"]);
    assert_eq!(report["config_sent"], true);
    // pushimg sends no HEAD for blobs that the tag itself lists. If one of them is missing, the
    // registry refuses the manifest, and pushimg pushes the image again.
    assert!(bench.registry.remove_blob("app", &pulled.layers[1].digest));
    let report = bench.push_right(&["-t", "v4"]);
    assert_eq!(outcomes(&report), ["uploaded"; 3]);
    assert_eq!(statuses(&bench.proxy, Step::ManifestPut), [Some(400), Some(201)]);
}

#[test]
fn a_listed_blob_that_the_registry_will_not_show_is_uploaded() {
    let bench = Bench::new();
    bench.push_right(&[]);
    let pulled = pull::oci(bench.host(), "app", "v1");
    let hidden = &pulled.layers[1];
    bench.tag_latest();
    for status in [403, 404] {
        let answer = Answer::status(status).error("DENIED", "in quarantine");
        let rule = Rule::at(Step::BlobHead, Fault::Answer(answer)).path(&hidden.digest);
        bench.proxy.set_rules(vec![rule]);
        let report = bench.push_tag(&format!("hidden{status}"), &[]);
        let transcript = bench.proxy.transcript();
        let expected = ["previous-image", "uploaded", "previous-image"];
        assert_eq!(outcomes(&report), expected, "{status}\n{transcript}");
        assert_eq!(report["digest"], pulled.digest, "{status}");
        assert_eq!(
            bench.proxy.body_bytes(Record::carries_blob),
            hidden.size,
            "{status}\n{transcript}"
        );
        assert!(bench.proxy.struck() > 0, "{status}\n{transcript}");
    }
}

#[test]
fn a_table_that_cannot_be_right_is_passed_over_with_a_note() {
    let bench = Bench::new();
    let layers: Vec<Value> = bench.image.layers.iter().map(|l| bench.put_layer(l)).collect();
    let config = bench.put_config(&put::config(&bench.diff_ids()));
    let manifest =
        |config: &Value, layers: &[Value]| put::manifest(config.clone(), layers.to_vec());
    let of_another_length = bench.put_config(&put::config(&bench.diff_ids()[..2]));
    let no_json = bench.put_config(b"\x1f\x8b no JSON");
    let no_digests = bench.put_config(br#"{"rootfs":{"type":"layers","diff_ids":["x","y","z"]}}"#);
    let mut gigantic = config.clone();
    gigantic["size"] = json!(1_u64 << 40);
    let huge = bench.put_config(&[b"{\"rootfs\":", &vec![b' '; 12 << 20][..], b"{}}"].concat());
    let mut lying = huge.clone();
    lying["size"] = json!(100);
    let mut negative = config.clone();
    negative["size"] = json!(-1);
    let foreign: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let mut layer = layer.clone();
            layer["mediaType"] = json!(put::FOREIGN_LAYER);
            layer["urls"] = json!(["http://127.0.0.1:1/layer"]);
            layer
        })
        .collect();
    let cases = [
        ("another length", manifest(&of_another_length, &layers)),
        ("no JSON", manifest(&no_json, &layers)),
        ("no digests", manifest(&no_digests, &layers)),
        ("gigantic", manifest(&gigantic, &layers)),
        ("huge", manifest(&huge, &layers)),
        ("longer than it says", manifest(&lying, &layers)),
        ("of negative length", manifest(&negative, &layers)),
        ("foreign layers", manifest(&config, &foreign)),
    ];
    for (name, table) in cases {
        bench.show(&table);
        let archive = bench.archive();
        let path = archive.to_str().expect("UTF-8");
        let (output, memory) =
            Pushimg::new().run_measured([path, &bench.destination(), "--json", "-v"]);
        let output = output.success();
        assert!(memory < 100 << 20, "{name}: {} MiB", memory >> 20);
        pull::assert_same_image(&archive, bench.host(), "app", "v1");
        let known = outcomes(&output.json());
        assert!(!known.contains(&"previous-image".to_owned()), "{name}: {known:?}");
        if name != "foreign layers" {
            output.says("nothing is reused of").says("app:v1");
        }
    }
}

#[test]
fn a_config_that_is_not_what_its_digest_says_is_no_table() {
    let bench = Bench::new();
    bench.push_right(&[]);
    let diff_ids = bench.diff_ids();
    // This order would give each layer the diff ID of another one.
    let swapped = [diff_ids[2].clone(), diff_ids[1].clone(), diff_ids[0].clone()];
    let body = String::from_utf8(put::config(&swapped)).expect("JSON");
    let mut answer = Answer::status(200).header("content-type", "application/octet-stream");
    answer.body = body;
    // The previous image needs another config; otherwise pushimg would not read it.
    let layers = bench.image.layers.iter().map(|layer| bench.put_layer(layer)).collect();
    let config = bench.put_config(&put::config(&diff_ids));
    put::tag(&bench.host(), "app", "v1", &put::manifest(config, layers));
    bench.proxy.set_rules(vec![Rule::at(Step::ConfigGet, Fault::Answer(answer))]);
    let report = bench.push_right(&[]);
    assert_eq!(outcomes(&report), ["answered-head"; 3]);
    assert_eq!(bench.proxy.struck(), 1, "{}", bench.proxy.transcript());
}

#[test]
fn a_blob_of_another_length_than_listed_is_not_taken() {
    let bench = Bench::new();
    // The table maps each layer to a blob that exists, but is shorter than the table says.
    let other = bench.put_layer(&Layer::file("other", b"something else"));
    let mut layers = vec![other; 3];
    for (layer, length) in layers.iter_mut().zip([4_000, 50_000, 300]) {
        layer["size"] = json!(length);
    }
    let config = bench.put_config(&put::config(&bench.diff_ids()));
    bench.show(&put::manifest(config, layers));
    let report = bench.push_right(&[]);
    assert_eq!(outcomes(&report), ["uploaded"; 3]);

    // The same if the answer to the HEAD gives a wrong length or lacks a header.
    for change in [
        Change::Set("content-length".to_owned(), "7".to_owned()),
        Change::Remove("content-length".to_owned()),
        Change::Remove("docker-content-digest".to_owned()),
    ] {
        let rewrite = Fault::Rewrite(vec![change.clone()]);
        bench.proxy.set_rules(vec![Rule::at(Step::BlobHead, rewrite)]);
        bench.push_right(&[]);
    }
}

/// Takes a blob away from a repository of `docker-registry`, as garbage collection would.
fn lose(registry: &DockerRegistry, repository: &str, digest: &str) {
    let link = registry
        .storage()
        .join("docker/registry/v2/repositories")
        .join(repository)
        .join("_layers/sha256")
        .join(digest.trim_start_matches("sha256:"));
    std::fs::remove_dir_all(link).expect("a blob of the repository");
}

#[test]
fn what_a_registry_said_to_have_and_denies_at_the_manifest_is_uploaded() {
    // docker-registry names all missing blobs; the development registry names only the first.
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let archives = ["layered-v1.tar", "layered-v1.tar.gz"].map(testdata);
    pushed(&archives[0], &format!("{}/app:v1", proxy.host()), &[]);
    let pulled = pull::oci(registry.host(), "app", "v1");
    for (number, archive) in archives.iter().enumerate() {
        let tag = format!("new{number}");
        let destination = format!("{}/app:{tag}", proxy.host());
        for layer in &pulled.layers[..2] {
            lose(&registry, "app", &layer.digest);
        }
        proxy.set_rules(pulled.layers[..2].iter().map(there).collect());
        proxy.clear();
        let output = pushed(archive, &destination, &["--json"]).says("read again");
        assert_eq!(statuses(&proxy, Step::ManifestPut), [Some(400), Some(201)]);
        let outcomes = outcomes(&output.json());
        assert_eq!(outcomes[..2], ["uploaded"; 2], "{}", proxy.transcript());
        assert_eq!(outcomes[2..], ["answered-head"; 4], "{}", proxy.transcript());
        pull::assert_same_image(archive, registry.host(), "app", &tag);
    }
    let bench = Bench::new();
    bench.push_right(&[]);
    bench.lose_behind_its_back();
    let destination = format!("{}/app:v2", bench.proxy.host());
    let report = pushed(bench.archive(), &destination, &["--json"]).json();
    assert_eq!(statuses(&bench.proxy, Step::ManifestPut), [Some(400), Some(201)]);
    assert_eq!(outcomes(&report), ["uploaded"; 3]);
    pull::assert_same_image(&bench.archive(), bench.host(), "app", "v2");
}

#[test]
fn a_registry_that_goes_on_denying_what_it_has_is_not_asked_for_ever() {
    let bench = Bench::new();
    bench.push_right(&[]);
    let before = bench.registry.tag("app", "v1");
    // pushimg cannot read a pipe a second time, so the push fails and the tag stays as it was.
    bench.lose_behind_its_back();
    let bytes = std::fs::read(bench.archive()).expect("an archive");
    let other = format!("{}/app:v2", bench.proxy.host());
    let output = Pushimg::new().stdin(bytes).run(["-", &other]).exits(4);
    output.says("MANIFEST_BLOB_UNKNOWN");
    assert_eq!(bench.registry.tag("app", "v1"), before);
    assert_eq!(bench.registry.tag("app", "v2"), None);
    bench.proxy.heal();
    bench.push_tag("v3", &[]);
    let archive = bench.archive();
    let path = archive.to_str().expect("UTF-8");
    for message in ["blob unknown to registry", &sha256(b"a blob of no image")] {
        bench.proxy.clear();
        let denied = Answer::status(400).error("MANIFEST_BLOB_UNKNOWN", message);
        bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(denied))]);
        Pushimg::new().run([path, &other]).exits(4).says("MANIFEST_BLOB_UNKNOWN");
        assert_eq!(bench.proxy.count_step(Step::ManifestPut), 2, "{}", bench.proxy.transcript());
        assert_eq!(bench.registry.tag("app", "v1"), before);
    }
}

fn statuses(proxy: &FaultProxy, step: Step) -> Vec<Option<u16>> {
    proxy.records().iter().filter(|r| r.is(step)).map(|r| r.status).collect()
}

#[test]
fn a_table_that_cannot_be_had_only_costs_time() {
    let bench = Bench::new();
    bench.push_right(&[]);
    let html = |status| Fault::Answer(Answer::status(status).html());
    for (name, step, fault) in [
        ("manifest 403", Step::ManifestGet, html(403)),
        ("manifest 404", Step::ManifestGet, html(404)),
        ("manifest no JSON", Step::ManifestGet, html(200)),
        ("manifest 500", Step::ManifestGet, html(500)),
        ("config 403", Step::ConfigGet, html(403)),
        ("config 500", Step::ConfigGet, html(500)),
    ] {
        bench.proxy.set_rules(vec![Rule::at(step, fault)]);
        let archive = bench.archive();
        let path = archive.to_str().expect("UTF-8");
        // The tag holds another image, so pushimg has to read its config.
        let layers = bench.image.layers.iter().map(|layer| bench.put_layer(layer)).collect();
        let config = bench.put_config(&put::config(&bench.diff_ids()));
        put::tag(&bench.host(), "app", "v1", &put::manifest(config, layers));
        let arguments = [path, &bench.destination(), "--json", "-v", "--retry-for", "1s"];
        let output = Pushimg::new().limit(Duration::from_secs(20)).run(arguments).success();
        let output = output.says("nothing is reused of");
        // The blobs of the first push are still there, and they have the same digests.
        assert_eq!(outcomes(&output.json()), ["answered-head"; 3], "{name}");
        bench.proxy.heal();
    }
    // pushimg retries after two answers 503 and then reuses the layers.
    let stall = Fault::Answer(Answer::status(503).retry_after(0).html());
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestGet, stall).first(2)]);
    assert_eq!(outcomes(&bench.push_right(&[])), ["previous-image"; 3]);
}

#[test]
fn an_entry_that_has_the_name_of_another_layer_is_what_its_bytes_are() {
    let bench = Bench::new();
    bench.push_right(&[]);
    // An old `docker save` could name an entry by an id that is not its diff ID. Here the id is the
    // diff ID of another layer, which the registry has.
    let [one, two, app] = [0, 1, 2].map(|index| bench.image.layers[index].clone());
    let name = |layer: &Layer| format!("{}/layer.tar", layer.diff_id().replace("sha256:", ""));
    let image = ImageBuilder::new(vec![two.clone(), one.clone(), app.clone()]);
    let config = image.config();
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": null,
        "Layers": [name(&one), name(&two), name(&app)],
    }])
    .to_string();
    let files: [(&str, &[u8]); 5] = [
        (&name(&one), &two.tar),
        (&name(&two), &one.tar),
        (&name(&app), &app.tar),
        ("config.json", &config),
        ("manifest.json", manifest.as_bytes()),
    ];
    let tar = tar_of(&files);
    let plain = archive::write(bench.dir.path(), "crossed.tar", &tar);
    let gzip = archive::write(bench.dir.path(), "crossed.tar.gz", &archive::gzip(&tar));
    for path in [plain, gzip] {
        pushed(&path, &bench.destination(), &[]);
        let pulled = pull::assert_same_image(&path, bench.host(), "app", "v1");
        assert_eq!(pulled.layers[0].diff_id(), two.diff_id());
        // Push the first image again, so that the previous image lists both layers for the next
        // round.
        pushed(bench.archive(), &bench.destination(), &[]);
    }
}
