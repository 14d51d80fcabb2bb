//! `flake.nix` and `package.nix`, evaluated by Nix against a stub of nixpkgs, down to the
//! attributes of the derivation.

use serde_json::{Value, json};

use crate::support::run::program;

/// Evaluates an expression in which `flake` is the flake's outputs.
fn evaluate(expression: &str) -> Value {
    let root = env!("CARGO_MANIFEST_DIR");
    let whole = format!(
        "let nixpkgs = import {root}/tests/support/nix/nixpkgs.nix;
             source = import {root}/flake.nix;
             flake = source.outputs {{ self = flake; inherit nixpkgs; }};
         in {expression}"
    );
    let output = program("nix-instantiate", ["--eval", "--strict", "--json", "--expr", &whole]);
    serde_json::from_str(&output).expect("JSON")
}

#[test]
fn the_package_is_built_from_this_repository() {
    let package = "flake.packages.x86_64-linux.default";
    assert_eq!(evaluate(&format!("{package}.pname")), "pushimg");
    assert_eq!(evaluate(&format!("{package}.version")), env!("CARGO_PKG_VERSION"));
    assert_eq!(evaluate(&format!("{package}.meta.mainProgram")), "pushimg");
    let licences = evaluate(&format!("map (l: l.spdxId) {package}.meta.license"));
    assert_eq!(licences, json!(["MIT", "Apache-2.0"]));
    let lock = evaluate(&format!("builtins.pathExists {package}.cargoLock.lockFile"));
    assert_eq!(lock, true);
    let install = evaluate(&format!("{package}.postInstall"));
    for part in ["installManPage", "--bash", "--fish", "--zsh"] {
        assert!(install.as_str().expect("text").contains(part), "{install}");
    }
    let systems = evaluate("builtins.attrNames flake.packages");
    assert_eq!(systems.as_array().map(Vec::len), Some(4));
}

#[test]
fn nix_run_pushes_and_an_overlay_has_the_package() {
    let program = evaluate("flake.apps.aarch64-linux.default.program");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(program, format!("/nix/store/pushimg-{version}/bin/pushimg"));
    let overlay = "(flake.overlays.default nixpkgs.legacyPackages.x86_64-linux {}).pushimg.pname";
    assert_eq!(evaluate(overlay), "pushimg");
}

#[test]
fn an_image_of_a_flake_gets_an_app_that_pushes_it() {
    let app = |image: &str, more: &str| {
        let call =
            format!("flake.lib.pushApp {{ image = {image}; destination = \"r.io/a b\"; {more} }}");
        assert_eq!(evaluate(&format!("({call}).type")), "app");
        evaluate(&format!("({call}).program")).as_str().expect("text").to_owned()
    };
    let image = "{ system = \"x86_64-linux\"; outPath = \"/nix/store/image.tar.gz\"; }";
    let version = env!("CARGO_PKG_VERSION");
    let pushimg = format!("exec /nix/store/pushimg-{version}/bin/pushimg");
    assert_eq!(
        app(image, "tags = [ \"v1\" \"latest\" ];"),
        format!("{pushimg} /nix/store/image.tar.gz 'r.io/a b' --tag 'v1' --tag 'latest' \"$@\"\n")
    );
    let layered = "{ system = \"x86_64-linux\"; outPath = \"/nix/store/image.tar.gz\";
                     stream.outPath = \"/nix/store/stream-image\"; }";
    let pkgs = "pkgs = nixpkgs.legacyPackages.aarch64-darwin;";
    assert!(
        app(layered, pkgs).starts_with(&format!("{pushimg} /nix/store/stream-image 'r.io/a b'"))
    );
}
