"""What is added to nano: a small SigLIP tower and a small conformer, in the terms of the released config.json."""

from collections.abc import Mapping
from typing import Any

# Two of SmolLM2's control tokens that chats never use stand for pictures and sounds: <filename> and <file_sep>.
IMAGE_TOKEN_ID = 6
AUDIO_TOKEN_ID = 5

VISION: Mapping[str, Any] = {
    "architectures": ["Phi4MMForCausalLM"],
    "model_type": "phi4mm",
    "img_processor": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "patch_size": 8,
    },
    "embd_layer": {
        "embedding_cls": "image_audio",
        "image_embd_layer": {
            "crop_size": 64,
            "embedding_cls": "tune_image",
            "hd_transform_order": "sub_glb",
            "image_token_compression_cls": "avg_pool_2d",
            "image_token_id": IMAGE_TOKEN_ID,
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
    },
    "vision_lora": {
        "dp": 0.0,
        "layer": r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))",
        "lora_alpha": 32,
        "r": 16,
    },
}
VISION_PREPROCESSOR: Mapping[str, Any] = {"dynamic_hd": 8, "image_processor_type": "Phi4MMImageProcessor"}

SPEECH: Mapping[str, Any] = {
    "architectures": ["Phi4MMForCausalLM"],
    "model_type": "phi4mm",
    "audio_processor": {
        "name": "cascades",
        "config": {
            "activation": "swish",
            "attention_dim": 192,
            "attention_heads": 3,
            "batch_norm": False,
            "bias_in_glu": True,
            "causal": True,
            "chunk_size": -1,
            "cnn_layer_norm": True,
            "conv_activation": "swish",
            "conv_glu_type": "swish",
            "depthwise_multiplier": 1,
            "depthwise_seperable_out_channel": 192,
            "ext_pw_kernel_size": 1,
            "ext_pw_out_channel": 192,
            "input_layer": "nemo_conv",
            "input_size": 80,
            "kernel_size": 3,
            "linear_units": 512,
            "nemo_conv_settings": {"conv_channels": 32},
            "num_blocks": 5,
            "relative_attention_bias_args": {"t5_bias_max_distance": 500, "type": "t5"},
            "time_reduction": 8,
        },
    },
    "embd_layer": {
        "embedding_cls": "image_audio",
        "audio_embd_layer": {
            "audio_token_id": AUDIO_TOKEN_ID,
            "compression_rate": 8,
            "downsample_rate": 1,
            "embedding_cls": "audio",
            "projection_cls": "mlp",
            "use_conv_downsample": False,
            "use_qformer": False,
        },
    },
    "speech_lora": {
        "dp": 0.01,
        "layer": r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))",
        "lora_alpha": 32,
        "r": 16,
    },
}
SPEECH_PREPROCESSOR: Mapping[str, Any] = {
    "audio_compression_rate": 8,
    "audio_downsample_rate": 1,
    "audio_feat_stride": 1,
    "feature_extractor_type": "Phi4MMAudioFeatureExtractor",
}
