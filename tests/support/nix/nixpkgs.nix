# As much of nixpkgs as flake.nix and package.nix use, for their test: derivations are sets that
# show what they were made from.
let
  lib = rec {
    genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    fileset = {
      unions = paths: assert builtins.all builtins.pathExists paths; paths;
      toSource = { root, fileset }: { outPath = "/nix/store/source"; files = map toString fileset; };
    };
    optionalString = condition: text: if condition then text else "";
    concatStringsSep = builtins.concatStringsSep;
    escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
    licenses = { mit.spdxId = "MIT"; asl20.spdxId = "Apache-2.0"; };
    platforms.unix = [ "x86_64-linux" "x86_64-darwin" ];
  };
  packagesFor = system: rec {
    inherit lib system;
    stdenv = { buildPlatform.canExecute = _: true; hostPlatform = system; };
    rustPlatform.buildRustPackage = attributes: attributes // {
      inherit system;
      type = "derivation";
      outPath = "/nix/store/${attributes.pname}-${attributes.version}";
    };
    installShellFiles = "installShellFiles";
    writeShellScript = name: text: { outPath = "/nix/store/${name}"; inherit text; __toString = _: text; };
    callPackage = path: overrides:
      let function = import path;
          arguments = builtins.intersectAttrs (builtins.functionArgs function)
            { inherit lib stdenv rustPlatform installShellFiles; };
      in function (arguments // overrides);
  };
in
{
  inherit lib;
  legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ] packagesFor;
}
