# MIT License
"""Documentation that the modules of a deploy share."""

from __future__ import annotations


class ModuleDocFragment:
    """One app, as the filter app_specs makes it of an entry of app_list."""

    DOCUMENTATION = r"""
options:
  app:
    description: The app, as the filter C(shipshape.droplet.app_specs) makes it of an entry of the role's C(app_list).
    type: dict
    required: true
    suboptions:
      name: {description: Name of the app and of its systemd unit., type: str, required: true}
      type:
        description: What kind of app it is.
        type: str
        choices: [python, command, container, compose, static]
        required: true
      user: {description: The system user it is fetched, built and run as., type: str, required: true}
      directory: {description: Where all its releases lie., type: path, required: true}
      git: {description: URL of its repository., type: str, default: ""}
      host_key: {description: The public key by which its server is known over ssh., type: str, default: ""}
      archive: {description: URL of the archive it comes from instead., type: str, default: ""}
      checksum: {description: "The archive's, such as C(sha256:…).", type: str, default: ""}
      version: {description: Branch, tag or commit; of an image the tag or the digest., type: str, required: true}
      path: {description: The folder of the repository that is deployed., type: str, default: .}
      build: {description: What makes the release out of the code., type: str, default: ""}
      publish: {description: The folder of a static site that what was built lies in., type: str, default: ""}
      container:
        description: What a container is made of, where the app is one.
        type: dict
        suboptions:
          image: {description: "Name of the image, without tag and digest.", type: str, required: true}
          port: {description: Port on which the app listens inside., type: int, default: 0}
          volumes: {description: Names of folders that outlive a release by their path inside., type: dict, default: {}}
          capabilities: {description: Rights of root that the app keeps., type: list, elements: str, default: []}
          memory: {description: "The memory it may have, as Docker writes it.", type: str, default: ""}
          cpus: {description: How many processors it may use., type: float, default: 0}
          sockets:
            description: Folders of the droplet with sockets that the app connects to.
            type: list
            elements: str
            default: []
          service: {description: "Of a Compose file, the service that answers requests.", type: str, default: ""}
          files:
            description: The Compose files in the code; without any, the one that has the usual name.
            type: list
            elements: str
            default: []
          server: {description: The registry that a login is for., type: str, default: ""}
      command: {description: What the service runs; C($PORT) and the like are expanded., type: str, default: ""}
      migrate: {description: What is run before the new release starts., type: str, default: ""}
      migrate_sql: {description: The folder of the code with SQL migrations., type: str, default: ""}
      seed: {description: What is run once in the life of the app, type: str, default: ""}
      hooks: {description: Commands by the moment of a deploy at which they are run., type: dict, default: {}}
      shared: {description: Folders of the code that all releases share., type: list, elements: str, default: []}
      processes:
        description: What runs beside the process that answers requests, in the same release.
        type: list
        elements: dict
        default: []
        suboptions:
          name: {description: Name of the process., type: str, required: true}
          command: {description: What it runs., type: str, required: true}
          count: {description: How many of it., type: int, default: 1}
          stop_timeout: {description: Seconds it may take to end., type: int, default: 60}
          memory: {description: "In a container, the memory it may have if not the app's.", type: str, default: ""}
          cpus: {description: "In a container, how many processors it may use, likewise.", type: float, default: 0}
      cron:
        description: What is run at times, in the live release.
        type: list
        elements: dict
        default: []
        suboptions:
          name: {description: Name of the entry., type: str, required: true}
          command: {description: What it runs., type: str, required: true}
      health: {description: Path that answers when the app is healthy., type: str, default: ""}
      health_status: {description: The status it then has., type: int, default: 200}
      health_body: {description: A regular expression that is found in what it then says., type: str, default: ""}
      health_timeout:
        description: Seconds the app may take until it is healthy; 0 for the task's own value.
        type: int
        default: 0
      address: {description: Address the app listens on., type: str, default: 127.0.0.1}
      port: {description: Port the app listens on., type: int, default: 0}
      second_port:
        description: >-
          Port of the release that is started beside the one that serves, by turns with the other port. Without one, no
          proxy can switch: the old release is stopped before the new one is started.
        type: int
        default: 0
      domain: {description: The host name under which a proxy leads to the app., type: str, default: ""}
      domain_health:
        description: The health path as it is asked through the proxy.
        type: str
        default: ""
      watch_seconds:
        description: How long a new release is watched; -1 for the role's own value.
        type: int
        default: -1
      keep_releases: {description: How many releases stay on disk., type: int, default: 5}
      settings_fingerprint: {description: Changes with the command and the folder., type: str, default: ""}
      environment_fingerprint: {description: Changes with the environment., type: str, default: ""}
"""
