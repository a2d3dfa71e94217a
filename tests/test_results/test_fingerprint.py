"""Fingerprints against the standard library, a published digest, and cases done by hand."""

from __future__ import annotations

import hashlib

import numpy as np

from mmsnnet.results.fingerprint import ABSENT, differences, fingerprint_file, fingerprint_text


def test_differences_pair_both_values_by_dotted_path():
    one = {'a': {'b': 1, 'c': [1, 2]}, 'd': 4}
    two = {'a': {'b': 2, 'c': [1, 2]}, 'e': 5}
    assert differences(one, one) == {}
    assert differences(one, two) == {'a.b': (1, 2), 'd': (4, ABSENT), 'e': (ABSENT, 5)}


def test_the_fingerprint_of_a_file_is_its_sha256(tmp_path):
    content = np.random.default_rng(0).bytes(3 * 2**20 + 17)
    (tmp_path / 'weights.pth').write_bytes(content)
    assert fingerprint_file(tmp_path / 'weights.pth') == hashlib.sha256(content).hexdigest()
    assert fingerprint_text('abc').startswith('ba7816bf8f01cfea')  # FIPS 180-2, appendix B.1
