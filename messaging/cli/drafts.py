"""Shows what waits for signatures: every verb that changes trust ends with the change in words."""

from messaging.cli.render import line
from messaging.security.bundle_diff import differences
from messaging.security.bundle_edit import Content
from messaging.security.bundle_format import signers_of
from messaging.security.trust_folder import DRAFT_FILE, TrustFolder, read_content

__all__ = ["EMPTY", "show_draft"]

# What the first bundle is compared with: nobody is known, nothing is allowed.
EMPTY: Content = {
    "version": 0,
    "services": {},
    "operators": {},
    "groups": {},
    "revoked": [],
    "policy": {"send": [], "subscribe": {}, "escrow": {}, "replay": []},
}


def show_draft(folder: TrustFolder) -> None:
    """Print what the draft changes, and what makes it the bundle in force."""
    draft = folder.draft()
    current = folder.current()
    new = read_content(draft)
    line(f"Draft of trust bundle version {new['version']} in {folder.path / DRAFT_FILE}:")
    for sentence in differences(read_content(current) if current is not None else {**new, **EMPTY}, new):
        line(f"  {sentence}")
    missing = folder.pins.threshold - len(signers_of(draft, folder.pins.roots))
    line(
        f"It takes effect when {missing} root key{'s' if missing > 1 else ''} sign{'' if missing > 1 else 's'} it: "
        f"messaging trust sign --root FILE --trust {folder.path}"
    )
