"""`init` in a repository that trains already."""

import os
import re
from pathlib import Path

import pytest

from mlship.config import commands, distributions
from mlship.config.installation import Installation, Origin
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.domain.commit import Repository
from mlship.errors import ConfigError
from mlship.templates import existing, project, shipped, site
from mlship.templates.existing import Existing, Found
from mlship.templates.scripts import Script
from mlship.templates.targets import target_of

SCRIPT = """
import joblib
import pandas as pd
from sklearn.linear_model import LogisticRegression

data = pd.read_csv("data/train.csv")
X, y = data.drop(columns="churned"), data["churned"]
joblib.dump(LogisticRegression().fit(X, y), "models/model.joblib")
"""

INSTALLED = Installation(origin=Origin(kind="git"), source="")


def repository(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def trained(root: Path, **files: str) -> Existing | None:
    return existing.find(repository(root, **files)).training


def test_a_script_its_model_its_data_and_its_target_are_found(tmp_path: Path) -> None:
    files = {"train.py": SCRIPT, "data/train.csv": "a,churned\n", "data/test.csv": "a,churned\n"}
    assert trained(tmp_path, **files) == Existing(
        command="python train.py",
        saved="models/model.joblib",
        train="data/train.csv",
        test="data/test.csv",
        target="churned",
        task="classification",
        imports=("joblib", "pandas", "sklearn"),
    )


def test_a_stage_of_dvc_wins(tmp_path: Path) -> None:
    stages = (
        "stages:\n"
        "  prepare: {cmd: python src/prepare.py, outs: [data/all.csv]}\n"
        "  train:\n"
        "    cmd: python src/train.py --depth ${train.depth}\n"
        "    outs:\n"
        "    - model.pkl: {cache: false}\n"
    )
    code = "y = frame['price'].values\n"
    files = {"dvc.yaml": stages, "src/train.py": code, "train.py": SCRIPT, "data/all.csv": "a\n"}
    found = trained(tmp_path, **files, **{"params.yaml": "train: {depth: 3}"})
    assert found is not None
    assert (found.command, found.saved) == ("python src/train.py --depth 3", "model.pkl")
    assert (found.train, found.test, found.target) == ("data/all.csv", "", "price")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"train.py": "print('no model')"},
        {"train.py": "this is no Python ("},
        {"train.py": "joblib.dump(m, '/srv/model.pkl')"},
        {"train.py": "joblib.dump(m, '../model.pkl')"},
        {"train.py": "joblib.dump(m, sys.argv[1])"},
        {"app.py": "model = joblib.load('model.pkl')\nmodel.predict([[1]])"},
        {"venv/lib/train.py": SCRIPT, "venv/pyvenv.cfg": ""},
        {".hidden/train.py": SCRIPT, "tests/test_train.py": SCRIPT},
        {"fraud/train.py": SCRIPT, "fraud/mlship.yaml": "name: fraud"},
        {"dvc.yaml": "stages: [1, 2]"},
        {"dvc.yaml": "stages: {train: {cmd: [a, b], outs: [m.pkl]}}"},
        {"dvc.yaml": "stages: {train: 5, two: {cmd: x ${y}, outs: [m.pkl]}}"},
    ],
)
def test_what_saves_no_model_is_no_training(files: dict[str, str], tmp_path: Path) -> None:
    assert trained(tmp_path, **files) is None


PATHS = {
    "joined by /": (
        "ROOT = Path(__file__).resolve().parent.parent\n"
        "OUT = ROOT / 'artifacts'\n"
        "joblib.dump(m, OUT / 'model.joblib')"
    ),
    "parents": "joblib.dump(m, Path(__file__).parents[1] / 'artifacts' / 'model.joblib')",
    "os.path": (
        "HERE = os.path.dirname(os.path.abspath(__file__))\n"
        "joblib.dump(m, os.path.join(HERE, os.path.pardir, 'x.txt'))\n"
        "joblib.dump(m, os.path.join('artifacts', 'model.joblib'))"
    ),
    "an f-string": "FOLDER = 'artifacts'\njoblib.dump(m, f'{FOLDER}/model.joblib')",
    "a sum": "FOLDER = 'artifacts/'\njoblib.dump(m, FOLDER + 'model.joblib')",
    "an option": "parser.add_argument('--out', default='artifacts/model.joblib')\ndump(m, a.out)",
    "joinpath": "joblib.dump(m, Path('artifacts').joinpath('model.joblib'))",
    "another name": "OUT = Path('artifacts/x.json')\ndump(m, OUT.with_name('model.joblib'))",
    "another suffix": "joblib.dump(m, Path('artifacts/model.txt').with_suffix('.joblib'))",
    "an annotation": "OUT: str = './artifacts/model.joblib'\njoblib.dump(m, OUT)",
    "another module": "from config import MODEL\njoblib.dump(m, MODEL)",
    "its package": "from src.config import MODEL\njoblib.dump(m, MODEL)",
}


@pytest.mark.parametrize("code", PATHS.values(), ids=PATHS)
def test_the_path_of_the_model_is_followed_through_the_code(code: str, tmp_path: Path) -> None:
    files = {"src/train.py": code, "src/config.py": "MODEL = 'artifacts/model.joblib'\n"}
    found = trained(tmp_path, **files)
    assert found is not None
    assert found.saved == "artifacts/model.joblib"
    is_module = "from src" in code
    assert found.command == ("python -m src.train" if is_module else "python src/train.py")


@pytest.mark.parametrize(
    "path",
    [
        "f'{NAME}.pkl'",
        "f'models/model_{datetime.date.today()}.pkl'",
        "args.out + '.pkl'",
        "Path(args.out) / 'model.pkl'",
        "os.path.join(args.out, 'model.pkl')",
        "Path(args.out).with_suffix('.pkl')",
        "Path(args.out).with_name('model.pkl')",
        "Path('out/').joinpath(args.run, 'model.pkl')",
        "OUT / 'model' / 'final.pkl'",
        "sys.argv[1]",
    ],
)
def test_a_path_that_is_not_wholly_known_is_not_proposed(path: str, tmp_path: Path) -> None:
    code = f"PART = 'b.pkl'\nx = OUT / PART\nRidge().fit(X, y)\njoblib.dump(m, {path})\n"
    folder = repository(tmp_path, **{"my train.py": code})
    assert existing.find(folder).training is None
    (told,) = [step for step in told_of(folder) if "train.py" in step]
    assert told == (
        "my train.py trains, and the path that it saves to was not understood (joblib.dump in line "
        "4): in mlship.yaml, replace what `model` has by `command: python 'my train.py'` and "
        "`saved` with the path"
    )


def test_the_command_for_a_script_is_quoted(tmp_path: Path) -> None:
    found = trained(tmp_path, **{"my train $1.py": SCRIPT})
    assert found is not None
    assert found.command == "python 'my train $1.py'"
    commands.check(found.command, "model.command")


def test_a_second_script_that_saves_a_model_is_named(tmp_path: Path) -> None:
    metrics = "Ridge().fit(X, y)\njson.dump(scores, open('scores.json', 'w'))\nload('model.pkl')\n"
    files = {"train_lr.py": SCRIPT, "train_rf.py": SCRIPT, "evaluate.py": metrics}
    found = existing.find(repository(tmp_path, **files))
    assert found.training is not None
    assert found.training.command == "python train_lr.py"
    (note,) = found.notes
    assert note.startswith("train_rf.py saves a model too (models/model.joblib), and was not taken")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (b"import joblib\nx = (\n", "line 2: '(' was never closed"),
        (b"%cd /content\n!pip install x\n", "line 1: invalid syntax, a command of notebooks"),
        ("x = 1\n".encode("utf-16"), ""),
    ],
)
def test_a_training_script_that_cannot_be_read_is_named(
    code: bytes, problem: str, tmp_path: Path
) -> None:
    for folder in (tmp_path / "alone", repository(tmp_path / "beside", **{"fit.py": SCRIPT})):
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_bytes(code)
        (folder / "other.py").write_bytes(code)
        (told,) = [step for step in told_of(folder) if "cannot be read" in step]
        assert told.startswith(f"train.py cannot be read as Python ({problem}")


def test_further_files_of_a_model_are_told_of(tmp_path: Path) -> None:
    code = "joblib.dump(s, 'out/scaler.pkl')\njoblib.dump(m, 'out/model.pkl')\n"
    planned = project.plan(repository(tmp_path, **{"train.py": code}), None, installed=INSTALLED)
    (told,) = [step for step in planned.next if "also saves" in step]
    assert told.startswith("the script also saves out/scaler.pkl: the model is served from out/mod")


def test_data_are_what_the_script_reads_and_not_what_it_writes(tmp_path: Path) -> None:
    code = (
        "RAW = 'raw.csv'\nframe = pd.read_csv(RAW)\nframe.to_csv('metrics.csv')\n"
        "TARGET = 'price'\njoblib.dump(model.fit(frame), 'model.joblib')\n"
    )
    files = {"train.py": code, "raw.csv.dvc": "outs: []", "metrics.csv": "a\n", "other.csv": "a\n"}
    found = trained(tmp_path, **files)
    assert found is not None
    assert (found.train, found.test, found.target) == ("raw.csv", "", "price")


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("y = df['a']", "a"),
        ("X, y = df.drop(columns=['a']), df['a']", "a"),
        ("y = df.pop('a')", "a"),
        ("T = 'a'\ny = df[T].to_numpy()", "a"),
        ("TARGET = 'a'", "a"),
        ("target_column: str = 'a'", "a"),
        ("y = load()", ""),
        ("x = df['a']", ""),
        ("y = df['a'][mask]", "a"),
        ("y = encoder.fit_transform(df['a'])", "a"),
        ("y = df[cfg['target']]", ""),
        ("y = df[self.config['data']['target']].values", ""),
        ("y = df.pop(params['target'])", ""),
        ("target = yaml.safe_load(file)['target']", ""),
        ("target = args['target']", ""),
        ("cfg = {}\ny = df['target']", "target"),
        ("model.fit(df.drop('a', axis=1), df['a'])", "a"),
        ("model.fit(X=df[cols], y=df.pop('a'))", "a"),
        ("Pipeline([('m', Ridge())]).fit(df[cols], df['a'].values.ravel())", "a"),
        ("scaler.fit_transform(df[['b']])\nmodel.fit(df[cols], df[['a']])", "a"),
        ("goal = df['a']\nmodel.fit(df.drop(columns='a'), goal)", "a"),
        ("a, b, c, d = train_test_split(df[cols], df['a'])\nm.fit(a, c)", "a"),
        ("lgb.train({}, lgb.Dataset(df[cols], label=df['a']))", "a"),
        ("xgb.DMatrix(df[cols], df['a'])", "a"),
        ("def load():\n  return df[cols], df['a']\nX, z = load()\nm.fit(X, z)", "a"),
        ("def go(X, z):\n  m.fit(X, z)\ngo(df[cols], df['a'])", "a"),
        ("y = df.a", "a"),
        ("y = df.a.values", "a"),
        ("y = df.iloc[:, -1]", "last"),
        ("y = df.iloc[:, 1].values", "a"),
        ("y = df.iloc[:, -1:]", "last"),
        ("y = df.iloc[:, 7]", ""),
        ("y = df.values[:, -1]", "last"),
        ("data = df.to_numpy()\nX, y = data[:, :-1], data[:, -1]", "last"),
        ("y = df.loc[:, 'a']", "a"),
        ("y = df[df.columns[-1]]", "last"),
        ("y = np.log1p(df['a'])", "a"),
        ("raw = df['a']\ny = LabelEncoder().fit_transform(raw)", "a"),
        ("raw = df['a']\ny = prepare(raw)", ""),
        ("y = df[['a', 'b']]", ""),
        ("y = y.astype(int)\ny = df['a']", "a"),
        ("y = df['made']\nm.fit(df[cols], df['a'])", "a"),
        ("y = df['made']", "made"),
        ("y = load_iris().target", ""),
        ("y = df.T", ""),
        ("df = df.dropna()\n" * 300 + "y = df.dropna().a", "a"),
    ],
)
def test_the_target_is_read_from_the_code(code: str, target: str, tmp_path: Path) -> None:
    repository(tmp_path, **{"train.py": code})
    assert target_of(Script(tmp_path, "train.py"), ("b", "a", "last")) == target


@pytest.mark.parametrize(
    ("code", "rows", "task"),
    [
        ("RandomForestRegressor()", "a,x", "regression"),
        ("sklearn.linear_model.Ridge()", "1,x", "regression"),
        ("make_pipeline(StandardScaler(), LinearRegression())", "1,0", "regression"),
        ("MODELS = {'a': XGBRegressor, 'b': CatBoostRegressor}", "1,0", "regression"),
        ("xgb.train({'objective': 'reg:squarederror'}, d)", "1,0", "regression"),
        ("lgb.train(dict(objective='binary'), d)", "1,0.5", "classification"),
        ("CatBoost({'loss_function': 'RMSE'})", "1,0", "regression"),
        ("LogisticRegression()", "1,0.5", "classification"),
        ("lgb.LGBMClassifier()", "1,0.5", "classification"),
        ("KMeans(3)", "1,0.5", "clustering"),
        ("IsolationForest()", "1,0.5", "anomaly"),
        ("x = KMeans(3)\nRidge()", "1,x", "regression"),
        ("Ridge()\nLogisticRegression()", "1,0.5\n2,1.25", "regression"),
        ("Ridge()\nLogisticRegression()", "1,no\n2,yes", "classification"),
        ("build()", "\n".join(f"1,{n * 10}" for n in range(30)), "regression"),
        ("build()", "1,0\n1,1\n2,0\n3,", "classification"),
        ("build()", "1,\n2,", ""),
        ("from zoo import build\nbuild()", "1,0", "regression"),
    ],
)
def test_the_metric_of_promotions_is_of_the_task(
    code: str, rows: str, task: str, tmp_path: Path
) -> None:
    script = (
        f"df = pd.read_csv('d.csv')\nm = {code.rpartition(chr(10))[2]}\n{code}\n"
        "m.fit(df[['x']], df['t'])\njoblib.dump(m, 'm.joblib')\n"
    )
    zoo = "def build():\n    return SVR()\n"
    folder = repository(tmp_path, **{"train.py": script, "zoo.py": zoo, "d.csv": f"x,t\n{rows}\n"})
    found = existing.find(folder).training
    assert found is not None
    assert found.task == task
    config = configured(project.plan(folder, None, installed=INSTALLED))
    metrics = {"regression": "mae", "clustering": "none", "anomaly": "none"}
    assert config.gates.promote.metric == metrics.get(task, "accuracy")
    assert config.data.target == ("t" if metrics.get(task) != "none" else None)
    assert config.model.task == (task if metrics.get(task) == "none" else "auto")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import pandas as pd\ndf = pd.read_csv('d.csv', sep=',')",
            "(os.environ.get(\"MLSHIP_TRAIN_DATA\", 'd.csv'), sep=','), with `import os` above; ",
        ),
        (
            "import os\nD = 'd.csv'\ndf = pd.read_csv(D)",
            'replace pd.read_csv(D) by pd.read_csv(os.environ.get("MLSHIP_TRAIN_DATA", D)); or',
        ),
        ("from reader import df", "in line 1 of reader.py, replace pd.read_csv('d.csv') by pd."),
        ("df = load('d.csv')", "in line 1 of train.py, replace 'd.csv' by os.environ.get("),
        ("df = load('d.csv') or load('d.csv')", "read the file that $MLSHIP_TRAIN_DATA names, if"),
        ("df = pd.read_csv(os.environ.get('MLSHIP_TRAIN_DATA', 'd.csv'))", ""),
        ("df = pd.read_csv(os.getenv('MLSHIP_TRAIN_DATA', 'd.csv'))", ""),
    ],
)
def test_init_says_which_line_keeps_the_held_out_rows_out(
    code: str, says: str, tmp_path: Path
) -> None:
    script = f"{code}\njoblib.dump(Ridge().fit(df[['x']], df['t']), 'm.joblib')\n"
    reader = "df = pd.read_csv('d.csv')\n"
    files = {"train.py": script, "reader.py": reader, "d.csv": "x,t\n1,2\n"}
    folder = repository(tmp_path / "one", **files)
    told = [step for step in told_of(folder) if "metrics are too good" in step]
    assert len(told) == bool(says)
    assert says in "".join(told)
    training = existing.find(folder).training
    assert training is not None
    assert (training.train, training.target) == ("d.csv", "t")
    folder = repository(tmp_path / "two", **files, **{"d_test.csv": "x,t\n1,2\n"})
    assert not [step for step in told_of(folder) if "metrics are too good" in step]


def test_init_names_the_default_of_an_option_that_has_the_path(tmp_path: Path) -> None:
    code = (
        "import os\np.add_argument('--data', default='data/d.csv')\ndf = pd.read_csv(a.data)\n"
        "joblib.dump(Ridge().fit(df[['x']], df['t']), 'm.joblib')\n"
    )
    folder = repository(tmp_path, **{"fit.py": code, "data/d.csv": "x,t\n1,2\n"})
    (told,) = [step for step in told_of(folder) if "metrics are too good" in step]
    new = "os.environ.get(\"MLSHIP_TRAIN_DATA\", 'data/d.csv')"
    assert f"in line 2 of fit.py, replace 'data/d.csv' by {new}; or" in told


@pytest.mark.parametrize(
    ("call", "read"),
    [
        ("pd.read_csv('d.csv')", {}),
        ("pd.read_csv('d.csv', sep=',', decimal='.', header=0)", {}),
        ("pd.read_csv('d.csv', sep=';', decimal=',')", {"sep": ";", "decimal": ","}),
        ("pd.read_csv('d.csv', delimiter='|')", {"sep": "|"}),
        ("pd.read_csv(args.data, sep=';')", {"sep": ";"}),
        ("pd.read_table('d.csv')", {"sep": "\t"}),
        ("pd.read_csv('d.csv', sep=r'\\s+', encoding='latin-1')", {"encoding": "latin-1"}),
        ("pd.read_csv('d.csv', na_values='?', index_col=0)", {"na_values": ["?"], "index_col": 0}),
        ("pd.read_csv('d.csv', index_col=False, dtype={'zip': str})", {}),
        ("pd.read_csv('d.csv', dtype={'zip': 'str'})", {"dtype": {"zip": "str"}}),
        ("pd.read_csv('d.csv', parse_dates=['day'])", {"parse_dates": ["day"]}),
        ("pd.read_csv('d.csv', sep=SEP)", {}),
    ],
)
def test_data_are_read_as_the_script_reads_them(
    call: str, read: dict[str, object], tmp_path: Path
) -> None:
    code = f"df = {call}\njoblib.dump(Ridge().fit(df[['x']], df.iloc[:, 1]), 'm.joblib')\n"
    head = str(read.get("sep", ",")).join("ixt")
    folder = repository(tmp_path, **{"train.py": code, "d.csv": f"\ufeff{head}\r\n"})
    found = existing.find(folder).training
    assert found is not None
    assert found.read == read
    assert found.target == ("t" if "index_col" in read else "x")
    settings = configured(project.plan(folder, None, installed=INSTALLED)).data.read
    for name, value in read.items():
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value)


def test_a_script_in_an_installed_package_needs_its_installation(tmp_path: Path) -> None:
    code = f"from churn.features import COLUMNS\n{SCRIPT}"
    folder = repository(tmp_path, **{"src/churn/train.py": code, "src/churn/features.py": ""})
    (told,) = [step for step in told_of(folder) if "pip install -e ." in step]
    assert told.startswith("the script imports churn, the package that it is in")
    repository(tmp_path / "other", **{"src/churn/train.py": SCRIPT})
    assert not [step for step in told_of(tmp_path / "other") if "pip install -e ." in step]


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("uv.lock", "`uv export --no-hashes --no-emit-project --output-file requirements.txt`"),
        ("poetry.lock", "`poetry export --without-hashes --output requirements.txt`"),
        ("environment.yml", "compare the packages there"),
        ("pyproject.toml", "compare the packages there"),
    ],
)
def test_packages_that_another_file_lists_are_asked_for(
    name: str, action: str, tmp_path: Path
) -> None:
    files = {"train.py": SCRIPT, name: "dependencies = []\n"}
    told = f"jobs install requirements.txt, and not {name}: {action}"
    assert told in told_of(repository(tmp_path / "a", **files))
    own = repository(tmp_path / "b", **files, **{"requirements.txt": "pandas\n"})
    assert told not in told_of(own)
    if name == "pyproject.toml":
        bare = repository(tmp_path / "c", **files | {name: "[tool.ruff]\n"})
        assert told not in told_of(bare)


def test_requirements_are_the_packages_that_the_training_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = '[project]\nname = "churn"\ndependencies = ["LightGBM >=4", "polars", "rich"]\n'
    code = "import os, yaml, lightgbm, own, unheard_of\nfrom . import near\nimport churn.rows\n"
    folder = repository(
        tmp_path,
        **{"pyproject.toml": settings, "src/churn/train.py": f"{code}{SCRIPT}"},
        **{"src/churn/rows.py": "import polars, google.cloud", "src/churn/own.py": ""},
    )
    providers = {"pandas": ["pandas"], "joblib": ["joblib"], "google": ["a", "b"]}
    monkeypatch.setattr(distributions, "of_modules", lambda names: set(providers.get(names[0], ())))
    planned = project.plan(folder, None, installed=INSTALLED)
    (written,) = [change for change in planned.changes if change.name == "requirements.txt"]
    lines = written.data.decode().splitlines()
    assert "pipeline.py" not in lines[0]
    assert "README" not in lines[0]
    assert lines[1:] == ["joblib", "LightGBM >=4", "pandas", "PyYAML", "scikit-learn"]
    told = [step for step in planned.next if "imports as" in step]
    assert told == ["add to requirements.txt the packages that the training imports as unheard_of"]
    project.carry_out(planned)
    again = project.plan(folder, None, installed=INSTALLED)
    assert not [change for change in again.changes if change.is_edited]


@pytest.mark.parametrize("settings", ["", '[tool.poetry]\npackages = [{from = "lib"}]\n'])
def test_a_module_that_a_stage_starts_is_read_where_it_is(settings: str, tmp_path: Path) -> None:
    source = "lib" if settings else "src"
    stages = "stages:\n  train: {cmd: python -m bikes.train, outs: [models/model.joblib]}\n"
    code = SCRIPT.replace('"data/train.csv"', 'PATH, sep=";"')
    files = {
        "dvc.yaml": stages,
        "pyproject.toml": f"{settings}[build-system]\n",
        f"{source}/bikes/train.py": f"from bikes.places import PATH\n{code}",
        f"{source}/bikes/places.py": 'PATH = "data/train.csv"\n',
        "data/train.csv": "a;churned\n1;2\n",
    }
    found = trained(tmp_path, **files)
    assert found
    assert (found.command, found.target, found.package) == (
        "python -m bikes.train",
        "churned",
        "bikes",
    )
    assert found.read == {"sep": ";"}
    plain = {"dvc.yaml": stages, "bikes/train.py": SCRIPT, "data/train.csv": "a,churned\n"}
    in_place = trained(tmp_path / "plain", **plain)
    assert in_place
    assert (in_place.target, in_place.package) == ("churned", "")


def test_a_training_function_is_used_as_it_is(tmp_path: Path) -> None:
    code = "def train(data, params):\n    return model.fit(data)\n"
    folder = repository(tmp_path, **{"churn/model.py": code, "data/all.csv": "a\n"})
    planned = project.plan(folder, None, installed=INSTALLED)
    config = resolve([from_yaml(planned.proposed, "mlship.yaml")]).config
    assert config.model.train == "churn.model:train"
    assert config.data.train == "data/all.csv"
    assert "pipeline.py" not in {change.name for change in planned.changes}
    one = {"train.py": "def train(data):\n    return model.fit(data)\n"}
    assert trained(tmp_path / "one", **one) is None


@pytest.mark.parametrize(
    ("files", "tests"),
    [
        (["tests/test_a.py"], ("tests",)),
        (["tests/deep/test_a.py", "tests/conftest.py"], ("tests",)),
        (["test/a_test.py"], ("test",)),
        (["test_model.py", "model_test.py"], ("model_test.py", "test_model.py")),
        (["tests/test_a.py", "tests/sanity/test_b.py"], ("tests/test_a.py",)),
        (["tests/unit/test_a.py"], ()),
        (["tests/sanity/test_a.py"], ()),
        (["tests/conftest.py"], ()),
    ],
)
def test_the_tests_that_are_there_are_used_and_no_others_are_added(
    files: list[str], tests: tuple[str, ...], tmp_path: Path
) -> None:
    folder = repository(tmp_path, **dict.fromkeys(files, "def test_a(): pass\n"))
    planned = project.plan(folder, None, installed=INSTALLED)
    found = existing.find(folder)
    assert found.tests == tests
    config = configured(planned)
    assert config.tests.paths("unit") == (tests or ("tests/unit",))
    added = {change.name for change in planned.changes if change.name.startswith("tests/")}
    assert bool(added) is not any("test_" in name or "_test" in name for name in files)


def configured(planned: project.Plan) -> Config:
    text = next(change.data for change in planned.changes if change.name == "mlship.yaml").decode()
    return resolve([from_yaml(text, "mlship.yaml")]).config


def test_a_script_without_a_model_and_a_notebook_are_named(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", **{"fit.py": "model.fit(x)\n", "a.ipynb": "{}"})
    (told,) = [step for step in told_of(folder) if "joblib.dump" in step]
    assert told.startswith("fit.py trains, and no model file that it saves was found")
    folder = repository(tmp_path / "b", **{"my model.ipynb": "{}"})
    (told,) = [step for step in told_of(folder) if "notebook" in step]
    assert "jupyter nbconvert --to script 'my model.ipynb'" in told


def told_of(folder: Path) -> tuple[str, ...]:
    return project.plan(folder, None, installed=INSTALLED).next


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("churn", "churn"),
        ("My Model", "my-model"),
        ("2024", "model-2024"),
        ("Modèle de Größe", "modele-de-grosse"),
        ("x" * 60, "x" * 40),
        ("models/churn", "models-churn"),
    ],
)
def test_a_project_is_named_by_its_folder(folder: str, name: str, tmp_path: Path) -> None:
    taken = ["churn"] if "/" in folder else []
    assert existing.name_of(tmp_path / folder, taken) == name


@pytest.mark.parametrize("test", ["", "data/te st.csv"])
def test_the_settings_that_are_written_are_valid(test: str) -> None:
    skeleton = shipped.files("templates/project")["mlship.yaml"].decode()
    training = Existing(
        command='python train.py --name "a: b"',
        saved="m.pkl",
        train="d.csv",
        test=test,
        target="yes",
    )
    found = Found(training=training, tests=("a b.py", "no"))
    text = existing.settings(found, "churn", skeleton)
    config = resolve([from_yaml(text, "mlship.yaml")]).config
    assert config.name == "churn"
    assert config.model.command == training.command
    assert (config.model.saved, config.data.train) == ("m.pkl", "d.csv")
    assert config.data.test == (test or None)
    assert config.data.target == "yes"
    assert config.tests.unit == ("a b.py", "no")
    assert config.gates.promote.min_labels == 200


def test_init_says_what_it_took_and_writes_no_skeleton_of_a_pipeline(tmp_path: Path) -> None:
    folder = repository(tmp_path, **{"train.py": SCRIPT, "data/train.csv": "a,churned\n"})
    planned = project.plan(folder, None, installed=INSTALLED)
    names = {change.name for change in planned.changes}
    assert {"mlship.yaml", "tests/sanity/test_served_model.py"} <= names
    assert not {"pipeline.py", "tests/unit/test_pipeline.py"} & names
    said = (
        "check mlship.yaml: it trains with `python train.py`, which saves models/model.joblib, on "
        "data/train.csv, and predicts churned"
    )
    assert said in planned.next
    assert "command: python train.py" in planned.proposed


def test_an_init_that_was_interrupted_does_not_take_its_own_files_for_the_users(
    tmp_path: Path,
) -> None:
    first = project.plan(tmp_path / "a", None, installed=INSTALLED)
    project.carry_out(first)
    (tmp_path / "a" / "mlship.yaml").unlink()
    (tmp_path / "a" / "tests" / "unit" / "test_pipeline.py").unlink()
    again = project.plan(tmp_path / "a", None, installed=INSTALLED)
    assert {change.name for change in again.changes} == {change.name for change in first.changes}
    assert again.names("write") == ["tests/unit/test_pipeline.py", "mlship.yaml"]
    assert again.proposed == ""


def test_a_skeleton_that_nobody_edited_gives_way_to_what_came_later(tmp_path: Path) -> None:
    folder = repository(tmp_path, **{"a.ipynb": "{}"})
    project.carry_out(project.plan(folder, None, installed=INSTALLED))
    assert (folder / "pipeline.py").exists()
    settings = folder / "mlship.yaml"
    settings.write_text(re.sub(r"(?m)^name: .*$", "name: churn", settings.read_text()))
    repository(tmp_path, **{"train.py": SCRIPT, "data/train.csv": "a,churned\n"})
    again = project.plan(folder, None, installed=INSTALLED)
    assert again.names("update") == ["requirements.txt", "mlship.yaml"]
    assert again.names("remove") == ["pipeline.py", "tests/unit/test_pipeline.py"]
    project.carry_out(again)
    assert configured(again).model.command == "python train.py"
    assert configured(again).name == "churn"
    assert not (folder / "pipeline.py").exists()
    assert not (folder / "tests/unit").exists()
    third = project.plan(folder, None, installed=INSTALLED)
    assert not [change for change in third.changes if change.what != "keep"]


def test_settings_that_somebody_edited_stay_whatever_comes_later(tmp_path: Path) -> None:
    project.carry_out(project.plan(tmp_path, None, installed=INSTALLED))
    edited = (tmp_path / "mlship.yaml").read_text() + "# mine\n"
    (tmp_path / "mlship.yaml").write_text(edited)
    repository(tmp_path, **{"train.py": SCRIPT})
    for example in (None, "iris"):
        again = project.plan(tmp_path, example, installed=INSTALLED)
        assert not {"update", "remove"} & {change.what for change in again.changes}


@pytest.mark.parametrize(
    "name", [b"d\xe4ten.csv", b"\xfcbung/train.py", b"test_\xe4.py", b"x\xe4.ipynb", b"tr\xffin.py"]
)
def test_a_name_that_is_not_utf8_is_shown_escaped_and_not_used(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(SCRIPT)
    planned = project.plan(tmp_path, None, installed=INSTALLED)
    (said,) = [step for step in planned.next if "not UTF-8" in step]
    assert said.startswith(os.fsencode(name.partition(b"/")[0]).decode("utf-8", "backslashreplace"))
    assert "\\x" in said
    planned.proposed.encode()
    project.carry_out(planned)


def test_a_project_folder_with_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"\xfcbung")
    place.mkdir()
    inner = Repository(top=tmp_path)
    with pytest.raises(ConfigError, match=r"folder \\xfcbung is not UTF-8"):
        project.plan(place, None, installed=INSTALLED, repository=inner)
    with pytest.raises(ConfigError, match="not UTF-8"):
        site.tracked(place, tmp_path)


@pytest.mark.parametrize("name", ["a.py", "test_a.py", "dvc.yaml", "params.yaml", "data/train.csv"])
def test_a_pipe_is_not_read(name: str, tmp_path: Path) -> None:
    repository(tmp_path, **{"train.py": SCRIPT, "data/other.csv": ""})
    os.mkfifo(tmp_path / name)
    found = existing.find(tmp_path)
    assert found.training is not None
    assert (found.training.saved, found.training.train) == ("models/model.joblib", "data/other.csv")


@pytest.mark.parametrize("name", ["requirements.txt", ".gitignore", "mlship.yaml"])
def test_a_pipe_in_the_place_of_a_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=name):
        project.plan(tmp_path, None, installed=INSTALLED)


def test_a_package_called_pipeline_gets_no_module_beside_it(tmp_path: Path) -> None:
    repository(tmp_path, **{"pipeline/load.py": "ROWS = 1\n"})
    planned = project.plan(tmp_path, None, installed=INSTALLED)
    names = {change.name for change in planned.changes}
    assert names.isdisjoint({"pipeline.py", "tests/unit/test_pipeline.py"})
    assert any("pipeline.py was not written" in step for step in planned.next)


def test_an_empty_mlship_yaml_is_filled(tmp_path: Path) -> None:
    repository(tmp_path, **{"train.py": SCRIPT, "data/train.csv": "a,churned\n", "mlship.yaml": ""})
    planned = project.plan(tmp_path, None, installed=INSTALLED)
    assert "command: python train.py" in planned.proposed
    assert "mlship.yaml" in planned.names("update")


@pytest.mark.parametrize("name", ["HEAD", "other"])
def test_the_folder_in_which_git_keeps_a_repository_is_refused(name: str, tmp_path: Path) -> None:
    repository(tmp_path, **{name: "", "objects/a": "", "refs/a": ""})
    if name != "HEAD":
        assert project.plan(tmp_path, None, installed=INSTALLED).changes
        return
    with pytest.raises(ConfigError, match="where git keeps a repository") as caught:
        project.plan(tmp_path, None, installed=INSTALLED)
    assert "git clone" in str(caught.value.hint)


def test_a_folder_called_mlship_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlship.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot read") as caught:
        project.plan(tmp_path, None, installed=INSTALLED)
    assert caught.value.hint == "rename this folder, then `mlship init`"
