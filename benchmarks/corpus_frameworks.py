"""The pairs of `corpus.py --frameworks`: models of CatBoost, PyTorch, Keras and Hugging Face.

Each answers by its framework in the benchmark, and without it (CatBoost's own format excepted) when
it is served. A pair whose framework is not installed is left out, and said to be.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence

from corpus_pairs import Pair

HEADER = """
import warnings

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
"""

_CATBOOST = """
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor

def train(data, params):
    features, target = data.drop(columns="target"), data["target"]
    return {model}.fit(features, target)
"""

_BARE = """
def answer(model, frame):
    shares = model.predict(frame, prediction_type="Probability")
    return np.asarray(model.classes_)[shares.argmax(axis=1)], shares
"""

_OPTIONS = (
    "iterations=12, depth=4, verbose=0, thread_count=1, allow_writing_files=False, random_seed=0"
)

_ANSWERS = """
LABELS = {labels}

def of_scores(values):
    values = np.asarray(values, dtype="float64").reshape(len(values), -1)
    with np.errstate(all="ignore"):
        if {is_logits}:
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            values = powers / powers.sum(axis=1, keepdims=True)
            if LABELS and len(LABELS) == 2 and values.shape[1] == 1:
                raise AssertionError("a single logit is made two by the pair itself")
    if values.shape[1] == 1:
        values = np.concatenate([1 - values, values], axis=1)
    return np.array(LABELS, dtype=object)[np.nan_to_num(values).argmax(axis=1)], values

def of_values(values):
    return np.asarray(values, dtype="float64").reshape(len(values)), None

def matrix(frame):
    with np.errstate(over="ignore"):
        return frame.astype("float64").to_numpy(dtype="float32", na_value=np.nan)
"""

_TORCH = """
import torch
from torch import nn

torch.set_num_threads(1)
{extra}

def train(data, params):
    torch.manual_seed(0)
    rows = torch.from_numpy(matrix(data.drop(columns="target")))
    target = torch.tensor({codes})
    middle, scale = rows.nanmean(0), (rows.nan_to_num() - rows.nanmean(0)).pow(2).mean(0).sqrt()
    net = {net}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = {loss}
        loss.backward()
        optimizer.step()
    return {returned}

def answer(model, frame):
    with torch.no_grad():
        return {answer}(model.eval()(torch.from_numpy(matrix(frame))).numpy())
"""

_SCALED = """
class Scaled(nn.Module):
    def __init__(self, middle, scale, body):
        super().__init__()
        self.register_buffer("middle", middle)
        self.register_buffer("scale", scale)
        self.body = body

    def forward(self, rows):
        filled = torch.where(torch.isnan(rows), self.middle, rows)
        return self.body((filled - self.middle) / self.scale)
"""

_KERAS = """
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras

def train(data, params):
    keras.utils.set_random_seed(0)
    rows = matrix(data.drop(columns="target"))
    target = np.asarray({codes})
    normal = keras.layers.Normalization()
    normal.adapt(rows)
    model = {model}
    model.compile("adam", {loss!r})
    model.fit(rows, target, epochs=15, verbose=0)
    return {returned}

def answer(model, frame):
    values = keras.ops.convert_to_numpy(model(matrix(frame), training=False))
    return {answer}(values)
"""

_TEXTS = """
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

torch.set_num_threads(1)
LABELS = ["liked", "not liked"]

def tokenizer_of(texts):
    # A trainer of the library breaks ties by chance: the model would be another one each time.
    normal = normalizers.BertNormalizer()
    words = sorted({{word for text in texts for word in normal.normalize_str(text).split()}})
    letters = sorted({{letter for word in words for letter in word}})
    pieces = [*words[::2], *letters, *("##" + letter for letter in letters)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {{piece: place for place, piece in enumerate(dict.fromkeys([*special, *pieces]))}}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normal
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=48,
    )

def trained(data):
    torch.manual_seed(0)
    tokenizer = tokenizer_of(data["text"].tolist())
    names = dict(id2label=dict(enumerate(LABELS)), label2id={{n: i for i, n in enumerate(LABELS)}})
    model = {model}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batch = tokenizer(data["text"].tolist(), return_tensors="pt", padding=True, truncation=True)
    batch = {{name: batch[name] for name in ("input_ids", "attention_mask")}}
    codes = torch.tensor([LABELS.index(label) for label in data["target"]])
    for _ in range(12):
        optimizer.zero_grad()
        model(**batch, labels=codes).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer

def train(data, params):
    model, tokenizer = trained(data)
    pipe = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu"{options}
    )
    {returned}

def answer(model, frame):
    model = pipe_of(model)
    shares = []
    for scores in model(frame["text"].tolist(), top_k=None):
        by_name = {{score["label"]: score["score"] for score in scores}}
        shares.append([by_name[label] for label in LABELS])
    shares = np.array(shares)
    return np.array(LABELS, dtype=object)[shares.argmax(axis=1)], shares

def pipe_of(model):
    if not isinstance(model, str):
        return model
    folder = os.path.join(os.path.dirname(__file__), model)
    return transformers.pipeline("text-classification", model=folder, truncation=True, device="cpu")
"""

_BERT = (
    "transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=300, "
    "hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, "
    "max_position_embeddings=48, **names))"
)
_DISTILBERT = (
    "transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig("
    "vocab_size=300, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=48, "
    "**names))"
)
_ROBERTA = (
    "transformers.RobertaForSequenceClassification(transformers.RobertaConfig(vocab_size=300, "
    "hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, "
    "max_position_embeddings=50, pad_token_id=0, **names))"
)


def pairs() -> list[Pair]:
    """Return the pairs whose frameworks are installed; names of the others are printed."""
    made: list[Pair] = []
    parts = {
        "catboost": (_catboost, _refused_catboost),
        "torch": (_torch, _refused_torch),
        "keras": (_keras, _refused_keras),
        "transformers": (_texts, _refused_texts),
        "mlflow": (_refused_mlflow,),
    }
    for module, part in parts.items():
        if importlib.util.find_spec(module) is None:
            print(f"left out: {module} is not installed")
            continue
        made += [pair for each in part for pair in each()]
    return made


def _catboost() -> Iterator[Pair]:
    models = {
        "catboost / none": ("numbers", "CatBoostClassifier({})"),
        "catboost / two classes": ("two", "CatBoostClassifier({})"),
        "catboost / coded": ("coded", "CatBoostClassifier({})"),
        "catboost / gaps": ("gaps", "CatBoostClassifier({})"),
        "catboost / gaps as largest": ("gaps", "CatBoostClassifier(nan_mode='Max', {})"),
        "catboost / whole numbers": ("whole", "CatBoostClassifier({})"),
        "catboost / booleans": ("booleans", "CatBoostClassifier({})"),
        "catboost / single": ("single", "CatBoostClassifier({})"),
        "catboost / nullable": ("nullable", "CatBoostClassifier({})"),
        "catboost / balanced": (
            "numbers",
            "CatBoostClassifier(auto_class_weights='Balanced', grow_policy='Lossguide', {})",
        ),
        "catboost / one against all": (
            "numbers",
            "CatBoostClassifier(loss_function='MultiClassOneVsAll', {})",
        ),
        "catboost / categories": (
            "mixed",
            "CatBoostClassifier(cat_features=['city', 'grade'], {})",
        ),
        "catboost / categories with whole numbers": (
            "mixed",
            "CatBoostClassifier(cat_features=['city', 'grade', 'rooms'], {})",
        ),
        "catboost / pandas categories": (
            "categories",
            "CatBoostClassifier(cat_features=['city', 'grade'], {})",
        ),
        "catboost / texts": ("reviews", "CatBoostClassifier(text_features=['text'], {})"),
        "catboost-regressor / none": ("price", "CatBoostRegressor({})"),
        "catboost-regressor / gaps": ("gaps_price", "CatBoostRegressor({})"),
        "catboost-regressor / quantile": (
            "price",
            "CatBoostRegressor(loss_function='Quantile:alpha=0.9', {})",
        ),
        "catboost-regressor / poisson": (
            "price",
            "CatBoostRegressor(loss_function='Poisson', {})",
        ),
        "catboost-regressor / tweedie": (
            "price",
            "CatBoostRegressor(loss_function='Tweedie:variance_power=1.4', {})",
        ),
        "catboost-regressor / categories": (
            "mixed_price",
            "CatBoostRegressor(cat_features=['city', 'grade'], {})",
        ),
    }
    for name, (data, model) in models.items():
        yield Pair(name, data, HEADER + _CATBOOST.format(model=model.format(_OPTIONS)))
    source = _CATBOOST.format(model=f"CatBoost(dict(loss_function='MultiClass', {_OPTIONS}))")
    yield Pair("catboost / bare", "numbers", HEADER + source + _BARE)
    filled = """
def preprocess(rows):
    return rows.fillna({"city": "none", "grade": "none"})
"""
    model = f"CatBoostClassifier(cat_features=['city', 'grade'], {_OPTIONS})"
    source = HEADER + filled + _CATBOOST.format(model=model)
    hooked = {"preprocess": "pipeline:preprocess"}
    yield Pair("catboost / hook: categories filled", "mixed_gaps", source, hooked)
    imports = "from sklearn.pipeline import make_pipeline\n"
    imports += "from sklearn.preprocessing import StandardScaler\n"
    piped = f"make_pipeline(StandardScaler(), CatBoostClassifier({_OPTIONS}))"
    yield Pair("catboost / standard", "numbers", HEADER + imports + _CATBOOST.format(model=piped))
    hook = """
def preprocess(rows):
    return rows.assign(ratio=rows["height"] / rows["weight"])
"""
    source = HEADER + hook + _CATBOOST.format(model=f"CatBoostClassifier({_OPTIONS})")
    yield Pair("catboost / hook: ratio", "numbers", source, hooked)


REFUSED = "refused / "
"""The start of the names of pairs that must be refused."""

_THREE = ["low", "mid", "top"]
_LAYERS = "nn.Linear({inputs}, 16), nn.{activation}(), nn.Dropout(0.2), nn.Linear(16, {outputs})"


def _refused_catboost() -> Iterator[Pair]:
    model = f"CatBoostRegressor(loss_function='MultiRMSE', {_OPTIONS})"
    source = HEADER + _CATBOOST.format(model=model)
    source = source.replace(".fit(features, target)", ".fit(features, data[['target', 'share']])")
    yield Pair(f"{REFUSED}catboost of several targets", "price", source)


def _torch() -> Iterator[Pair]:
    for activation in ("ReLU", "GELU", "Tanh", "SiLU"):
        body = _LAYERS.format(inputs=5, activation=activation, outputs=3)
        yield _torch_pair(
            f"torch / {activation.lower()} logits", "numbers", f"nn.Sequential({body})", _THREE
        )
    body = _LAYERS.format(inputs=5, activation="ReLU", outputs=3)
    net = f"nn.Sequential({body}, nn.Softmax(1))"
    yield _torch_pair("torch / softmax", "numbers", net, _THREE, output="probabilities")
    net = f"nn.Sequential(nn.LayerNorm(5), {body}, nn.BatchNorm1d(3))"
    yield _torch_pair("torch / norms", "numbers", net, _THREE)
    yield _torch_pair("torch / gaps", "gaps", f"nn.Sequential({body})", _THREE)
    net = f"nn.Sequential({body})"
    script = "torch.jit.script(net.eval())"
    yield _torch_pair("torch / script", "numbers", net, _THREE, returned=script)
    yield _torch_pair("torch / coded", "coded", net, [0, 1, 2])
    single = _LAYERS.format(inputs=5, activation="ReLU", outputs=1)
    net = f"nn.Sequential({single}, nn.Sigmoid(), nn.Flatten(0))"
    yield _torch_pair("torch / sigmoid", "two", net, ["no", "yes"], output="probabilities")
    net = f"nn.Sequential({single})"
    yield _torch_pair("torch / values", "price", net, [], output="values")
    net = f"nn.Sequential({single}, nn.Flatten(0))"
    yield _torch_pair("torch / values flat", "gaps_price", net, [], output="values")
    hook = """
def preprocess(rows):
    return rows.assign(ratio=rows["height"] / rows["weight"]).drop(columns="tiny")
"""
    net = f"nn.Sequential({body})"
    yield _torch_pair("torch / hook: ratio", "numbers", net, _THREE, hook=hook)


_REFUSED_NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 3)

    def forward(self, rows{more}):
        rows = torch.nan_to_num(rows)
        return {returned}

def train(data, params):
    torch.manual_seed(0)
    net = Net()
    {saved}
"""


def _refused_torch() -> Iterator[Pair]:
    logits = {"output": "logits", "classes": _THREE}
    nets: dict[str, tuple[str, str, Mapping[str, object]]] = {
        "torch that does not say what it returns": ("self.body(rows)", "", {}),
        "torch of two inputs": ("self.body(rows + other)", ", other", logits),
        "torch of several outputs": ("self.body(rows), rows", "", logits),
        "torch of other rows": ("self.body(rows - rows.mean(0))", "", logits),
        "torch by chance": ("self.body(rows + torch.rand_like(rows))", "", logits),
        "torch of many values": ("self.body(rows)", "", {"task": "regression"}),
    }
    for name, (returned, more, config) in nets.items():
        source = HEADER + _REFUSED_NETS.format(more=more, returned=returned, saved="return net")
        data = "price" if "values" in name else "numbers"
        yield Pair(f"{REFUSED}{name}", data, source, config)
    saved = (
        "import os\n    path = os.path.join(os.path.dirname(__file__), 'net.pt')\n"
        "    torch.save(net, path)\n    return 'net.pt'"
    )
    source = HEADER + _REFUSED_NETS.format(more="", returned="self.body(rows)", saved=saved)
    yield Pair(f"{REFUSED}torch in a pickle", "numbers", source, logits)


def _torch_pair(
    name: str,
    data: str,
    net: str,
    labels: Sequence[object],
    *,
    output: str = "logits",
    returned: str = "net",
    hook: str = "",
) -> Pair:
    is_value = output == "values"
    codes = 'data["target"].to_numpy(dtype="float32")'
    if not is_value:
        codes = f"[{labels!r}.index(label) for label in data['target']]"
    losses = {
        "values": "(net(rows).reshape(-1) - target).pow(2).mean()",
        "logits": "nn.functional.cross_entropy(net(rows), target)",
        "probabilities": "nn.functional.nll_loss(torch.log(net(rows) + 1e-9), target)",
    }
    loss = losses[output]
    if len(labels) == 2:
        loss = "nn.functional.binary_cross_entropy(net(rows), target.float())"
    source = HEADER + _ANSWERS.format(labels=labels, is_logits=output == "logits") + hook
    source += _TORCH.format(
        extra=_SCALED,
        codes=codes,
        net=f"Scaled(middle, scale, {net})",
        loss=loss,
        returned=returned,
        answer="of_values" if is_value else "of_scores",
    )
    config: dict[str, object] = {"output": output}
    config |= {"classes": labels} if labels and list(labels) != [0, 1, 2] else {}
    config |= {"preprocess": "pipeline:preprocess"} if hook else {}
    return Pair(name, data, source, config)


def _keras() -> Iterator[Pair]:
    dense = "keras.layers.Dense(12, activation={!r}), keras.layers.Dropout(0.2)"
    sequential = "keras.Sequential([keras.Input((5,)), normal, {}, keras.layers.Dense({})])"
    for activation in ("relu", "gelu", "tanh", "swish"):
        model = sequential.format(dense.format(activation), "3, activation='softmax'")
        yield _keras_pair(f"keras / {activation} softmax", "numbers", model, _THREE)
    norms = dense.format("relu") + ", keras.layers.BatchNormalization()"
    model = sequential.format(norms, "3, activation='softmax'")
    yield _keras_pair("keras / norms", "coded", model, [0, 1, 2])
    model = sequential.format(dense.format("relu"), "3")
    yield _keras_pair("keras / logits", "numbers", model, _THREE, output="logits")
    model = sequential.format(dense.format("relu"), "1, activation='sigmoid'")
    yield _keras_pair("keras / sigmoid", "two", model, ["no", "yes"])
    model = sequential.format(dense.format("relu"), "1")
    yield _keras_pair("keras / values", "price", model, [], output="values")
    functional = (
        "(lambda i: keras.Model(i, keras.layers.Dense(3, activation='softmax')("
        "keras.layers.Concatenate()([normal(i), keras.layers.Dense(6, activation='relu')("
        "normal(i))]))))(keras.Input((5,)))"
    )
    yield _keras_pair("keras / functional", "numbers", functional, _THREE)
    saved = (
        "(model.save(os.path.join(os.path.dirname(__file__), 'm.keras')), 'm.keras')[1]"
        " if params.get('saved') else model"
    )
    model = sequential.format(dense.format("relu"), "3, activation='softmax'")
    yield _keras_pair("keras / saved", "numbers", model, _THREE, returned=saved)


def _refused_keras() -> Iterator[Pair]:
    source = """
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras

def train(data, params):
    layers = [keras.Input((5,)), keras.layers.Lambda(lambda rows: rows * 2), keras.layers.Dense(3)]
    keras.Sequential(layers).save(os.path.join(os.path.dirname(__file__), "m.keras"))
    return "m.keras"
"""
    config = {"output": "logits", "classes": _THREE}
    yield Pair(f"{REFUSED}keras with a Lambda in a file", "numbers", HEADER + source, config)


def _keras_pair(
    name: str,
    data: str,
    model: str,
    labels: Sequence[object],
    *,
    output: str = "auto",
    returned: str = "model",
) -> Pair:
    is_value = output == "values"
    codes = 'data["target"].to_numpy(dtype="float32")'
    if not is_value:
        codes = f"[{labels!r}.index(label) for label in data['target']]"
    loss = "sparse_categorical_crossentropy"
    loss = "mse" if is_value else "binary_crossentropy" if len(labels) == 2 else loss
    source = HEADER + _ANSWERS.format(labels=labels, is_logits=output == "logits")
    source += _KERAS.format(
        codes=codes,
        model=model,
        loss=loss,
        returned=returned,
        answer="of_values" if is_value else "of_scores",
    )
    config: dict[str, object] = {"output": output} if output != "auto" else {}
    config |= {"classes": labels} if labels and list(labels) != [0, 1, 2] else {}
    config |= {"params": {"saved": True}} if returned != "model" else {}
    return Pair(name, data, source, config)


def _texts() -> Iterator[Pair]:
    for name, model in (("bert", _BERT), ("distilbert", _DISTILBERT), ("roberta", _ROBERTA)):
        source = HEADER + _TEXTS.format(
            model=model, options=", truncation=True", returned="return pipe"
        )
        yield Pair(f"transformers / {name}", "texts", source)
    source = HEADER + _TEXTS.format(model=_BERT, options="", returned="return pipe")
    yield Pair("transformers / not cut off", "texts", source)
    folder = (
        "pipe.save_pretrained(os.path.join(os.path.dirname(__file__), 'saved'))\n    return 'saved'"
    )
    source = HEADER + _TEXTS.format(model=_BERT, options=", truncation=True", returned=folder)
    yield Pair("transformers / saved folder", "texts", source)


def _refused_texts() -> Iterator[Pair]:
    pickled = (
        "folder = os.path.join(os.path.dirname(__file__), 'saved')\n"
        "    pipe.save_pretrained(folder)\n"
        "    torch.save(model.state_dict(), os.path.join(folder, 'pytorch_model.bin'))\n"
        "    os.unlink(os.path.join(folder, 'model.safetensors'))\n    return 'saved'"
    )
    source = HEADER + _TEXTS.format(model=_BERT, options="", returned=pickled)
    yield Pair(f"{REFUSED}transformers in a pickle", "texts", source)
    several = (
        "model.config.problem_type = 'multi_label_classification'\n"
        "    pipe.function_to_apply = None\n    return pipe"
    )
    source = HEADER + _TEXTS.format(model=_BERT, options="", returned=several)
    yield Pair(f"{REFUSED}transformers of several labels", "texts", source)


def _refused_mlflow() -> Iterator[Pair]:
    source = """
import os
import mlflow.pyfunc

class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [0] * len(model_input)

def train(data, params):
    mlflow.pyfunc.save_model(
        os.path.join(os.path.dirname(__file__), "logged"), python_model=Own(), pip_requirements=[]
    )
    return "logged"
"""
    yield Pair(f"{REFUSED}mlflow as a Python function", "numbers", HEADER + source)
