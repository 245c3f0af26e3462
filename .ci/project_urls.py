"""Adds the addresses of the project to the metadata of its packages.

All are derived from `repository` in pyproject.toml, the only place to change. While it
is empty, the project has no address.
"""

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """The hook of hatchling that fills `project.urls`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata):
        """Add the addresses to the metadata."""
        urls = project_urls(self.config["repository"], self.config["documentation"])
        metadata["urls"] = urls | {"Paper": self.config["paper"]}


def project_urls(repository, documentation):
    """Return the addresses of the project by their labels on PyPI.

    The pages of a repository on GitHub, `https://github.com/OWNER/NAME`, are the
    documentation if there is no other address.
    """
    repository = repository.rstrip("/")
    documentation = documentation.rstrip("/")
    if not repository:
        return {"Documentation": documentation} if documentation else {}
    if not documentation:
        host, owner, name = repository.removeprefix("https://").split("/")
        if host != "github.com":
            raise ValueError(
                "documentation must be set in pyproject.toml if the repository is not "
                f"on github.com; it is {repository!r}."
            )
        documentation = f"https://{owner.lower()}.github.io/{name}"
    return {
        "Homepage": documentation,
        "Documentation": documentation,
        "Source": repository,
        "Changelog": f"{repository}/blob/main/CHANGES.md",
        "Issues": f"{repository}/issues",
    }
