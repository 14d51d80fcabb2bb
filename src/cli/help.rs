//! What `--help` says after what `-h` says.

/// Of `pushimg`.
pub const DETAILS: &str = "\
Examples:
  pushimg result registry.fly.io/app:latest
  pushimg result                        # to the name that the image carries
  pushimg --dry-run result ghcr.io/me/app
  pushimg result ghcr.io/me/app:v2 -t latest --digest-file digest.txt
  docker save app | pushimg - registry.example.com/team/app:v1
  pushimg result registry.fly.io/app | xargs -r fly deploy --image
  pushimg result-a=registry.fly.io/a:v1 result-b=registry.fly.io/b:v1
  pushimg --index ghcr.io/me/app:v2 amd64=result-amd64 arm64=result-arm64
  pushimg inspect result --against registry.fly.io/app:latest

List of images, for --file:
  [{\"image\": \"result-a\", \"destination\": \"r.io/a:v1\", \"tags\": [\"latest\"]}, ...]

Result:
  Standard output gets one line, registry/repository@sha256:..., for each image
  that was pushed, or with --json one JSON document; with --dry-run alone,
  nothing. All else is standard error.

Exit codes:
  0    pushed
  1    failed
  2    wrong usage
  3    the image cannot be read
  4    the registry refused: credentials, permission, name
  5    the network or the registry failed, after retries
  130  interrupted
  Of several images, the code of the first, in the order given, that failed.

Environment:
  REGISTRY_AUTH_FILE           credentials, after --auth-file
  DOCKER_CONFIG                folder of Docker's config.json, else ~/.docker
  FLY_ACCESS_TOKEN, FLY_API_TOKEN
                               credentials for registry.fly.io
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                               proxies, and hosts that need none
  TMPDIR                       where compressed layers wait for their upload
  XDG_CACHE_HOME               where the cache is, else ~/.cache
  NO_COLOR, CLICOLOR=0         no colours
  CI, TERM=dumb                plain lines in place of progress bars";

/// Of `pushimg inspect`.
pub const INSPECT_DETAILS: &str = "\
Examples:
  pushimg inspect result
  pushimg inspect images.tar --image app:v1
  pushimg inspect result --json | jq '.images[0].layers[].store_paths'
  pushimg inspect result --against registry.fly.io/app:latest

Result:
  Standard output gets a table, or with --json one JSON document. Nothing is
  uploaded.

Exit codes and environment variables are those of pushimg --help.";
