//! How to reach a machine, and which of its runtimes gets the image.

/// Options for sending an image to a machine over SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The ssh program and its first arguments. Default: `ssh`.
    pub command: Vec<String>,
    /// The runtime that gets the image. Default: the first one on the machine that answers.
    pub runtime: Option<RuntimeName>,
    /// Whether to call the runtime through `sudo` on the machine. Default: no.
    pub sudo: bool,
    /// The namespace of containerd; `None` (the default): `k8s.io` for k3s and crictl, else
    /// containerd's `default`.
    pub namespace: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { command: vec!["ssh".to_owned()], runtime: None, sudo: false, namespace: None }
    }
}

/// A program that keeps images on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeName {
    /// Docker.
    Docker,
    /// podman.
    Podman,
    /// containerd, through nerdctl.
    Nerdctl,
    /// containerd, through ctr.
    Ctr,
    /// k3s's containerd, through `k3s ctr`.
    K3s,
    /// The images of containerd's CRI, through ctr: crictl itself can only pull.
    Crictl,
}
