"""HFQ-Former: the published computation against a reference in plain einsum, and each option by itself."""

import math

import pytest
import torch

from fastwhisper import HFQFormer, HFQFormerConfig, convert_hfq_state_dict
from fastwhisper.configuration.configuration_fastslm import tokens_in_window
from fastwhisper.conversion.published_fastslm import publish_hfq_state_dict

from ..tiny_models import CHECKPOINTING

FRAMES, WIDTH, HEADS = 48, 24, 4
SMALL = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "max_source_positions": FRAMES,
    "stage_queries": (6, 6, 6),
    "num_queries": 8,
}


def former(seed=0, **settings):
    torch.manual_seed(seed)
    return HFQFormer(HFQFormerConfig(**{**SMALL, **settings})).eval()


def frames(windows=3, length=FRAMES):
    return torch.randn(windows, length, WIDTH, generator=torch.Generator().manual_seed(5))


class PublishedReference:
    """The published computation by its published names, written from the paper's description alone."""

    def __init__(self, weights, heads):
        self.w, self.heads = weights, heads

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x, name):
        y = torch.einsum("...i,oi->...o", x, self.w[f"{name}.weight"])
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def gelu(self, x):
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    def clock(self, length, width):
        rate = torch.tensor([10_000 ** (-i / (width // 2 - 1)) for i in range(width // 2)])
        angle = torch.einsum("p,r->pr", torch.arange(length).float(), rate)
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)

    def attend(self, q, k, v):
        depth = q.shape[-1] // self.heads
        heads = []
        for head in range(self.heads):
            part = slice(head * depth, (head + 1) * depth)
            scores = torch.einsum("bqd,bkd->bqk", q[..., part], k[..., part]) / math.sqrt(depth)
            heads.append(torch.einsum("bqk,bkd->bqd", torch.softmax(scores, -1), v[..., part]))
        return torch.cat(heads, dim=-1)

    def compress(self, x, name):
        query = self.norm(self.w[f"{name}.query"], f"{name}.q_ln")
        values = self.norm(x, f"{name}.kv_ln")
        queries = (query + self.clock(*query.shape)).expand(len(x), -1, -1)
        keys = values + self.clock(*values.shape[1:])
        return self.linear(self.attend(queries, keys, values), f"{name}.out_proj")

    def convolve(self, x, name, stride):
        weight, length = self.w[f"{name}.weight"], x.shape[1]
        padded = torch.cat([torch.zeros_like(x[:, :1]), x, torch.zeros_like(x[:, :1])], dim=1)
        taps = [padded[:, tap : tap + length][:, ::stride] for tap in range(3)]
        return sum(torch.einsum("bti,oi->bto", taps[k], weight[..., k]) for k in range(3)) + self.w[f"{name}.bias"]

    def downsample(self, x, name):
        x = self.gelu(self.convolve(x, f"{name}.conv1", 1))
        return self.norm(self.gelu(self.convolve(x, f"{name}.conv2", 2)), f"{name}.ln_post")

    def project_attention(self, x, sources, name):
        q, k, v = self.linear(x, f"{name}.q"), self.linear(sources, f"{name}.k"), self.linear(sources, f"{name}.v")
        return self.linear(self.attend(q, k, v), f"{name}.out_proj")

    def __call__(self, x):
        half = self.downsample(x, "encoder.stage1")
        quarter = self.downsample(half, "encoder.stage2")
        scales = [x, half, quarter]
        read = [self.compress(scale, f"encoder.compressor{i + 1}") for i, scale in enumerate(scales)]
        tokens = self.compress(torch.cat(read, dim=1), "encoder.compressor")
        for block in range(2):
            name = f"encoder.out_attn.{block}"
            normed = self.norm(tokens, f"{name}.norm1")
            tokens = tokens + self.project_attention(normed, normed, f"{name}.attn")
            normed = self.norm(tokens, f"{name}.norm2")
            tokens = tokens + self.project_attention(normed, torch.cat(scales, dim=1), f"{name}.cross_attn")
        return tokens


def random_published(config, seed=1):
    """A published checkpoint with no weight at a trivial value."""
    generator = torch.Generator().manual_seed(seed)
    published = publish_hfq_state_dict(HFQFormer(config).state_dict(), config.max_source_positions)
    return {
        name: w if name.endswith("pos_embeds") else 0.3 * torch.randn(w.shape, generator=generator)
        for name, w in published.items()
    }


@pytest.mark.parametrize("frame_count", [FRAMES, 45])
def test_published_computation(frame_count):
    config = HFQFormerConfig(**{**SMALL, "max_source_positions": frame_count})
    published = random_published(config)
    ours = HFQFormer(config).eval()
    ours.load_state_dict(convert_hfq_state_dict(published), strict=True)
    x = frames(length=frame_count)
    expected = PublishedReference(published, HEADS)(x)
    assert ours(x).shape == (3, 8, WIDTH)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


def test_published_computation_with_published_queries():
    config = HFQFormerConfig(hidden_size=320, max_source_positions=300)
    published = random_published(config)
    matrices = [name for name, w in published.items() if w.ndim > 1 and not name.endswith(("query", "pos_embeds"))]
    published.update({name: published[name] / 4 for name in matrices})
    ours = HFQFormer(config).eval()
    ours.load_state_dict(convert_hfq_state_dict(published), strict=True)
    x = torch.randn(1, 300, 320, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = PublishedReference(published, 20)(x)
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        adapter = HFQFormer(HFQFormerConfig())

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(adapter) == 52_861_440
    assert [count(compressor) for compressor in adapter.compressors] == [1_747_200] * 3
    assert count(adapter.fusion) == 1_708_800
    assert count(adapter.downsamplers) == 19_671_040
    assert count(adapter.blocks) == 26_240_000


def test_conversion_there_and_back():
    published = random_published(HFQFormerConfig(**SMALL))
    back = publish_hfq_state_dict(convert_hfq_state_dict(published), FRAMES)
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)
    bare = {name.removeprefix("encoder."): w for name, w in published.items()}
    bare["compressor1.query"] = bare["compressor1.query"][None]
    converted = convert_hfq_state_dict(bare)
    assert torch.equal(converted["compressors.0.queries"], published["encoder.compressor1.query"])


def test_conversion_lists_unknown_and_missing_names():
    published = random_published(HFQFormerConfig(**SMALL))
    del published["encoder.stage1.conv1.bias"]
    published["encoder.compressor2.kv_proj.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="compressor2.kv_proj.weight.*stage1.conv1.bias"):
        convert_hfq_state_dict(published)


def test_every_option_is_off_by_default():
    config = HFQFormerConfig()
    assert (config.query_clock, config.mask_padding, config.tokens_follow_length) == ("index", False, False)
    assert (config.rates, config.intermediate_size, config.dropout) == (None, None, 0.0)
    plain = former()
    x, lengths = frames(), torch.tensor([FRAMES, 10, 3])
    assert torch.equal(plain(x), plain(x, frame_lengths=lengths))


def test_aligned_clock_reads_where_the_query_stands():
    """With zero queries the sinusoids alone decide where a query looks: the aligned ones spread over the window."""

    def looks_at(adapter):
        compressor = adapter.compressors[0]
        with torch.no_grad():
            compressor.queries.zero_()
            compressor.key_norm.weight.fill_(1.0)
            compressor.out_proj.weight.copy_(torch.eye(adapter.config.hidden_size))
            compressor.out_proj.bias.zero_()
        x = torch.randn(1, 512, 512, generator=torch.Generator().manual_seed(0))
        read, values = compressor(x, 512)[0], compressor.key_norm(x)[0]
        return (read @ values.T).argmax(dim=1)

    settings = {
        "hidden_size": 512,
        "num_attention_heads": 1,
        "max_source_positions": 512,
        "stage_queries": (4,),
        "num_blocks": 0,
    }
    assert looks_at(former(**settings)).max() <= 16
    aligned = looks_at(former(**settings, query_clock="aligned"))
    assert (aligned - torch.tensor([0, 128, 256, 384])).abs().max() <= 16


def test_masked_padding_equals_audio_without_padding():
    adapter = former(mask_padding=True)
    x = frames()
    for length in (1, 7, 20, FRAMES):
        noisy = x.clone()
        noisy[:, length:] = 100 * torch.randn(3, FRAMES - length, WIDTH)
        torch.testing.assert_close(
            adapter(noisy, frame_lengths=torch.full((3,), length)), adapter(x[:, :length]), rtol=1e-4, atol=1e-5
        )


def test_tokens_follow_length():
    adapter = former(tokens_follow_length=True)
    lengths = torch.tensor([FRAMES, 12, 13, 1])
    kept = adapter.kept_tokens(lengths)
    # 8 tokens for 48 frames: one each 6 frames, and one that has begun.
    assert kept.sum(dim=1).tolist() == [8, 2, 3, 1]
    for row, length in enumerate(lengths.tolist()):
        assert kept[row].tolist() == sorted(kept[row].tolist(), reverse=True)
        assert int(kept[row].sum()) == tokens_in_window(length, FRAMES, 8, 8, True)
    x = frames(windows=4)
    changed = adapter(x, frame_lengths=lengths)
    assert torch.equal(changed[0], adapter(x)[0])
    assert not torch.allclose(changed[1, :2], former()(x)[1, :2])


@pytest.mark.parametrize("rate", [1, 2, 3, 8])
def test_token_counts_agree_for_every_length_and_rate(rate):
    adapter = former(tokens_follow_length=True, rates=(1, 2, 3, 8))
    lengths = torch.arange(1, FRAMES + 1)
    expected = [tokens_in_window(length, FRAMES, 8, rate, True) for length in lengths.tolist()]
    assert adapter.kept_tokens(lengths, rate).sum(dim=1).tolist() == expected


def test_nested_rates():
    adapter, x = former(rates=(2, 4, 8)), frames()
    assert torch.equal(adapter(x, tokens_per_window=8), former()(x))
    assert adapter(x, tokens_per_window=2).shape == (3, 2, WIDTH)
    # Without blocks a token depends on its own query alone: a lower rate is a subset.
    single = former(rates=(2, 4, 8), num_blocks=0)
    torch.testing.assert_close(single(x, tokens_per_window=4), single(x)[:, ::2])
    with pytest.raises(ValueError, match=r"tokens_per_window=3.*\[2, 4, 8\]"):
        adapter(x, tokens_per_window=3)


def test_feed_forward():
    adapter, x = former(intermediate_size=40), frames()
    assert not torch.allclose(adapter(x), former()(x))
    for block in adapter.blocks:
        torch.nn.init.zeros_(block.feed_forward[-1].weight)
        torch.nn.init.zeros_(block.feed_forward[-1].bias)
    plain = former()
    plain.load_state_dict({n: w for n, w in adapter.state_dict().items() if "feed_forward" not in n})
    assert torch.equal(adapter(x), plain(x))
    with pytest.raises(ValueError, match="feed_forward"):
        publish_hfq_state_dict(adapter.state_dict(), FRAMES)


def test_dropout_only_in_training():
    adapter, x = former(dropout=0.5), frames()
    assert torch.equal(adapter(x), former()(x))
    adapter.train()
    assert not torch.equal(adapter(x), adapter(x))


def test_gradient_reaches_every_parameter_and_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        adapter = former(intermediate_size=40).train()
        if checkpointing:
            getattr(adapter, f"{CHECKPOINTING}_enable")()
        adapter(frames()).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in adapter.named_parameters()})
    # Keys without bias and values without position: no parameter is idle, not even a norm's.
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients[0].values())
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_save_and_load(tmp_path):
    adapter, x = former(query_clock="aligned", rates=(2, 8)), frames()
    adapter.save_pretrained(tmp_path)
    loaded = HFQFormer.from_pretrained(tmp_path)
    assert torch.equal(loaded(x), adapter(x))
    assert loaded.config.rates == [2, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 30}, "multiple"),
        ({"rates": (4, 9)}, "rates"),
        ({"num_queries": 0}, "at least 1"),
        ({"query_clock": "late"}, "query_clock"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(Exception, match=message):
        HFQFormerConfig(**{**SMALL, **settings})


def test_frames_of_another_shape():
    with pytest.raises(ValueError, match="48 frames of width 24, got 49 of width 24"):
        former()(torch.zeros(1, 49, WIDTH))
