from __future__ import annotations

import pytest

from attnlab.errors import AttnlabError
from tests.data.conftest import silently
from tests.data.segmentation.conftest import voc_data, write_masks


class TestMaskValues:
    @pytest.mark.parametrize("names", [["ground"], ["ground", "leaf"], ["a", "b", "c"]])
    def test_binary_masks_of_0_and_255(self, voc_folder, names):
        write_masks(voc_folder, [[0, 0, 0, 255]])
        with pytest.raises(
            AttnlabError, match=r"5 'train' masks.*0 and 255.*ignore.*2\d\.\d%.*store 1 instead"
        ):
            voc_data(voc_folder, class_names=names).setup("fit")

    @pytest.mark.parametrize("on_bad_image", ["error", "skip"])
    def test_also_if_an_object_fills_a_picture(self, voc_folder, on_bad_image):
        write_masks(voc_folder, [[255]], [[0, 255]])
        with pytest.raises(AttnlabError, match="store 1 instead of 255"):
            voc_data(voc_folder, on_bad_image=on_bad_image).setup("fit")

    def test_masks_to_score_by(self, voc_folder):
        write_masks(voc_folder, [[0, 255]])
        for stage in ("validate", "test"):
            with pytest.raises(AttnlabError, match=r"store 1 instead of 255.*--data\.check none"):
                voc_data(voc_folder).setup(stage)

    def test_without_the_check_it_is_a_warning(self, voc_folder):
        write_masks(voc_folder, [[0, 255]])
        with pytest.warns(UserWarning, match=r"Checked 5 of .*store 1 instead of 255"):
            voc_data(voc_folder, check=False).setup("fit")

    def test_masks_of_255_alone_are_bad_files(self, voc_folder):
        write_masks(voc_folder, [[255]], [[0, 1]])
        with pytest.raises(AttnlabError, match=r"(?s)3 of 5 files.*only 255 \(ignore\)"):
            voc_data(voc_folder).setup("fit")
        data = voc_data(voc_folder, on_bad_image="skip")
        with pytest.warns(UserWarning, match="are skipped"):
            data.setup("fit")
        assert len(data.datasets["train"]) == 2
        write_masks(voc_folder, [[255]])
        with pytest.raises(AttnlabError, match="No images are left"):
            voc_data(voc_folder, on_bad_image="skip").setup("fit")

    @pytest.mark.parametrize("mask", [[[0]], [[1]], [[1, 255]]])
    def test_one_class_alone_cannot_be_learnt(self, voc_folder, mask):
        write_masks(voc_folder, mask)
        with pytest.raises(AttnlabError, match=rf"Nothing can be learnt.* class {mask[0][0]} "):
            voc_data(voc_folder).setup("fit")
        silently(voc_data(voc_folder), "validate")

    def test_classes_in_no_mask_are_named_once(self, voc_folder):
        data = voc_data(voc_folder, class_names=["ground", "leaf", "stem", "bud"])
        with pytest.warns(UserWarning, match="2 of 4 classes are in no training mask.*: stem, bud") as said:
            data.setup("fit")
        assert len(said) == 1
        silently(data, "test")

    def test_much_that_is_ignored_is_said(self, voc_folder):
        write_masks(voc_folder, [[0, 1, 255, 255, 255]])
        with pytest.warns(UserWarning, match=r"[56]\d\.\d% of the training masks' pixels are 255"):
            voc_data(voc_folder).setup("fit")
        write_masks(voc_folder, [[0, 0, 0, 0, 255]], [[0, 1]])
        with pytest.warns(UserWarning, match="3 of 5 masks hold only 0 and 255"):
            voc_data(voc_folder).setup("fit")
        write_masks(voc_folder, [[0, 1, 0, 1, 255]])
        silently(voc_data(voc_folder))
