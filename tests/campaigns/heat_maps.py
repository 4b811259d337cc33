"""A heat map of each of 111 architectures of timm's, with random weights; six minutes of a core.

pytest tests/campaigns/heat_maps.py -m campaign -n 0
"""

import pytest
import timm
import torch

from automl.backbones.heads import head_modules
from automl.backbones.timm_model import find_native_size
from automl.inspection.heat_maps import make_heat_maps

NAMES = """
    beit_base_patch16_224 caformer_s18 cait_xxs24_224 coat_lite_tiny coatnet_nano_rw_224 convformer_s18 convit_tiny
    convmixer_1024_20_ks9_p14 convnext_atto convnext_zepto_rms cpubone_b0_bfrobust crossvit_tiny_240
    cs3darknet_focus_s csatv2 cspnext_l davit_tiny deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 densenet121
    dla46x_c dm_nfnet_f0 dpn68 eca_halonext26ts edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf
    gcvit_xxtiny ghostnet_100 gmlp_s16_224 haloregnetz_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small
    inception_next_atto inception_v3 lambda_resnet26t levit_128s mambaout_femto maxvit_rmlp_pico_rw_256
    mixer_s16_224 mobilenetv2_100 mobilenetv3_small_100 mobileone_s0 mobilevit_xxs mvitv2_tiny
    naflexvit_base_patch16_gap nest_tiny nextvit_small pit_ti_224 poolformer_s12 pvt_v2_b0 rdnet_tiny regnety_002
    repghostnet_050 repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnest14d resnet18 rexnet_100 selecsls42b
    sequencer2d_s shvit_s1 starnet_s1 swiftformer_xs swin_s3_tiny_224 swin_tiny_patch4_window7_224
    swinv2_tiny_window8_256 test_byobnet test_coatnet test_convnext test_convnext2 test_convnext3 test_efficientnet
    test_efficientnet_evos test_efficientnet_gn test_efficientnet_ln test_mambaout test_maxvit test_nfnet
    test_resnet test_vit test_vit2 test_vit3 test_vit4 test_vit_relpos tf_efficientnet_lite0 tf_efficientnet_lite1
    tf_efficientnet_lite2 tiny_vit_5m_224 tinynet_e tnt_s_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny
    vit_base_patch16_siglip_224 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3 vit_tiny_patch16_224
    vitamin_small_224 volo_d1_224 xception41 xcit_nano_12_p16_224
"""


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")  # of timm's own
@pytest.mark.parametrize("name", NAMES.split())
def test_an_architecture_has_a_map_of_the_size_of_the_image(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=2)
    for head in head_modules(network):  # some start from zero, and then nothing counts
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    side = find_native_size(name)
    images = torch.randn(1, 3, side, side)
    maps = [make_heat_maps(network, images, target) for target in (0, 1)]
    assert all(heat.shape == (1, side, side) for heat in maps)
    assert max(heat.max() for heat in maps) == 1  # what does not speak for one of two classes speaks for the other
