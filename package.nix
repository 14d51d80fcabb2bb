# pushimg, to be called with callPackage.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
}:

let
  manifest = (lib.importTOML ./Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ./.;
    fileset = lib.fileset.unions [
      ./Cargo.toml
      ./Cargo.lock
      ./README.md
      ./LICENSE-APACHE
      ./LICENSE-MIT
      ./src
      ./tests/support
    ];
  };
  cargoLock.lockFile = ./Cargo.lock;

  # The tests need registries and other programs; scripts/test runs them.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/pushimg man man
    installManPage man/*.1
    installShellCompletion --cmd pushimg \
      --bash <($out/bin/pushimg completions bash) \
      --fish <($out/bin/pushimg completions fish) \
      --zsh <($out/bin/pushimg completions zsh)
  '';

  meta = {
    inherit (manifest) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "pushimg";
    platforms = lib.platforms.unix;
  };
}
