{
  description = "Push container images to registries without Docker";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forAllSystems = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      app = program: {
        type = "app";
        program = toString program;
      };
    in
    {
      packages = forAllSystems (pkgs: rec {
        pushimg = pkgs.callPackage ./package.nix { };
        default = pushimg;
      });

      apps = forAllSystems (pkgs: rec {
        pushimg = app "${pkgs.callPackage ./package.nix { }}/bin/pushimg";
        default = pushimg;
      });

      overlays.default = final: _: { pushimg = final.callPackage ./package.nix { }; };

      # An app that pushes an image of dockerTools:
      #   apps.x86_64-linux.push = pushimg.lib.pushApp {
      #     image = self.packages.x86_64-linux.docker;
      #     destination = "registry.fly.io/app:latest";
      #   };
      # Then `nix run .#push` builds and pushes it; arguments after `--` are passed on. Give `pkgs`
      # if the app is to run on another system than the one that the image is built on.
      lib.pushApp =
        {
          image,
          destination,
          tags ? [ ],
          pkgs ? nixpkgs.legacyPackages.${image.system},
        }:
        let
          pushimg = pkgs.callPackage ./package.nix { };
          # buildLayeredImage has its stream script beside it, which needs no archive in the store.
          source = image.stream or image;
          tagOptions = map (tag: "--tag ${pkgs.lib.escapeShellArg tag}") tags;
          arguments = [
            source
            (pkgs.lib.escapeShellArg destination)
          ]
          ++ tagOptions;
        in
        app (
          pkgs.writeShellScript "push" ''
            exec ${pushimg}/bin/pushimg ${pkgs.lib.concatStringsSep " " arguments} "$@"
          ''
        );
    };
}
