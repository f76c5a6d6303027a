# SPDX-License-Identifier: GPL-2.0-or-later
"""Policy rows, aliases, user policies."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from replay import policies
from replay.policies import FEATURES, POLICIES
from replay.state import FIRST_REGISTER, POLICY
from tracer.errors import UsageError

KERNELS = ("linux-6.1", "linux-6.12", "linux-7.2", "linux-7.3", "linux-7.3+anon-batch")


def test_every_policy_has_a_value_for_every_feature() -> None:
    for policy in POLICIES.values():
        assert set(policy.features) == {f.name for f in FEATURES}
        assert policy.title
        assert policy.source


def test_features_fit_their_place_in_the_state() -> None:
    assert POLICY + len(FEATURES) <= FIRST_REGISTER


def test_later_kernels_only_add_batching() -> None:
    for older, newer in itertools.pairwise(KERNELS):
        for feature in FEATURES:
            if feature.batches:
                assert POLICIES[newer].value(feature.name) >= POLICIES[older].value(feature.name), (
                    f"{newer} lost {feature.name}"
                )


def test_batched_is_the_union_and_unbatched_the_absence() -> None:
    for feature in FEATURES:
        if feature.batches:
            best = max(POLICIES[k].value(feature.name) for k in KERNELS)
            assert POLICIES["batched"].value(feature.name) == best
            assert POLICIES["unbatched"].value(feature.name) == feature.unbatched
        else:
            assert POLICIES["unbatched"].value(feature.name) == POLICIES["linux-7.3"].value(
                feature.name
            )


@pytest.mark.parametrize(
    ("release", "like"),
    [
        ("6.12.107+deb13-cloud-arm64", "linux-6.12"),
        ("7.3.4", "linux-7.3"),
        ("7.2.13-1", "linux-7.2"),
        ("6.18.0", "linux-6.12"),
        ("8.0.1", "linux-7.3"),
        ("5.15.0", "linux-6.1"),
    ],
)
def test_own_is_the_newest_listed_kernel_not_newer(release: str, like: str) -> None:
    assert policies.get("own", kernel_release=release).features == POLICIES[like].features


def test_own_without_a_release_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="--policy"):
        policies.get("own")


def test_unknown_policy_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"linux-7\.3"):
        policies.get("bat")


def test_set_switches_one_operation() -> None:
    changed = policies.with_sets(POLICIES["linux-7.3"], {"fork": "unbatched", "fold": "0"})
    assert changed.value("fork_batch") == 0
    assert changed.value("fold") == 0
    assert changed.value("zap_batch") == 1
    with pytest.raises(UsageError, match="fork"):
        policies.with_sets(POLICIES["linux-7.3"], {"forks": "unbatched"})


def test_toml_policy(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "linux-6.12"\n[features]\nmprotect_batch = 1\n')
    mine = policies.get(str(path))
    assert mine.name == "mine"
    assert mine.value("mprotect_batch") == 1
    assert mine.value("mremap_batch") == 0
    path.write_text('base = "linux-6.12"\n[features]\nmprotect_bach = 1\n')
    with pytest.raises(UsageError, match="mprotect_batch"):
        policies.get(str(path))
    path.write_text("base = [")
    with pytest.raises(UsageError, match="cannot be read"):
        policies.get(str(path))
