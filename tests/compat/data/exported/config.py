chat_pipeline = [
    dict(
        mean=[
            0.1,
            0.2,
            0.3,
        ],
        size=16,
        std=[
            0.4,
            0.4,
            0.4,
        ],
        type='PrepareImages'),
    dict(open_last=True, template='short', type='FormatPrompt'),
    dict(
        max_length=64, tokenizer='${language_model}', type='TokenizeSegments'),
]
default_scope = 'mmgpt'
language_model = 'base/llama'
model = dict(
    lora=dict(
        exclude_modules='(vision|perceiver)\\..*',
        lora_alpha=4,
        r=2,
        target_modules=[
            'q_proj',
            'to_q',
        ]),
    module=dict(
        gated=dict(dim_head=4, every_n_layers=2, gate_init=0.5, heads=2),
        generation=dict(max_new_tokens=6),
        language=dict(path='${language_model}'),
        perceiver=dict(depth=1, dim_head=4, heads=2, num_latents=2),
        reading='latest',
        type='Flamingo',
        vision=dict(path='${vision_model}', type='OpenCLIPVision'),
        weights='base/flamingo.safetensors'),
    type='LoRAModel')
vision_model = 'base/clip'
