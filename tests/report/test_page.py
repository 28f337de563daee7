"""A run's page from whatever the run has left: finished, unfinished, killed."""

import json
import math
import re

import pytest
from report_runs import HOSTILE, row, write_history, write_settings, write_table

from trl_hybrid.errors import InputError
from trl_hybrid.report import write_report
from trl_hybrid.report.headline import headline, subtitle
from trl_hybrid.report.page import curves, step_times
from trl_hybrid.report.panels import PANELS, named_panels
from trl_hybrid.report.run import read_run
from trl_hybrid.verifier.logs import log_rates
from trl_hybrid.verifier.verdict import Verdict


NAN = math.nan


def page_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


class TestReading:
    def test_an_unfinished_run_is_read_from_what_it_wrote_so_far(self, tmp_path):
        write_settings(tmp_path)
        write_history(tmp_path, 4)
        run = read_run(tmp_path, 100)
        assert (run.step, run.finished, run.num_completions) == (4, False, 0)
        assert dict(headline(run)) == {
            "Pass rate in training, first → last tenth": "10.0 → 40.0 %",
            "Steps, unfinished": "4 of 40",
            "Time in steps": "24 s",
            "Alarm for reward hacking": "silent",
        }
        assert "Train with <code>--log_completions true</code>" in write_report(tmp_path).read_text()

    def test_a_finished_run_has_its_accuracy(self, tmp_path):
        write_history(tmp_path, 4)
        accuracy = {"greedy": {"before": None, "after": 0.5}, "mean_of_8": {"before": 0.25, "after": 0.75}}
        summary = {"steps": 4, "accuracy": accuracy, "settings": {"training": {"max_steps": 4}}, "versions": {}}
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        figures = dict(headline(read_run(tmp_path, 100)))
        assert figures["Held-out accuracy, greedy"] == "unknown → 50.0 %"
        assert figures["Held-out accuracy, mean of 8"] == "25.0 → 75.0 %"
        assert figures["Steps"] == "4"
        write_history(tmp_path, 6)  # resumed with more steps
        figures = dict(headline(read_run(tmp_path, 100)))
        assert figures["Steps, unfinished"] == "6"
        assert "Held-out accuracy, greedy, until step 4" in figures
        write_history(tmp_path, 3)  # went on from a checkpoint before its end
        figures = dict(headline(read_run(tmp_path, 100)))
        assert figures["Steps, unfinished"] == "3 of 4"
        assert "Held-out accuracy, greedy, until step 4" in figures

    def test_completions_of_an_attempt_that_the_run_went_back_behind_are_left_out(self, tmp_path):
        for step in (2, 4, 6):
            write_table(tmp_path, step, [row(step, "1?", "x", 0.0, step, 0.0)])
        write_history(tmp_path, 5)
        run = read_run(tmp_path, 100)
        assert run.completions["step"].tolist() == [2, 4]
        assert run.num_completions == 2

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "data/embedded_policy on data/addition, judged by the verifier and data/embedded_reward_model"),
            (
                {"tasks": {"dataset_name": "data/addition", "datasets": [{"path": "a/b"}, {"path": "c/d"}]}},
                "data/embedded_policy on a/b, c/d, judged by the verifier and data/embedded_reward_model",
            ),
            ({"judges": None}, "data/embedded_policy on data/addition"),
        ],
        ids=["one data set", "mixture", "cold start"],
    )
    def test_what_was_trained_on_what_and_judged_by_whom(self, tmp_path, changes, expected):
        write_settings(tmp_path)
        written = json.loads((tmp_path / "settings.json").read_text())
        settings = {part: value for part, value in {**written["settings"], **changes}.items() if value is not None}
        (tmp_path / "settings.json").write_text(json.dumps({**written, "settings": settings}))
        assert subtitle(read_run(tmp_path, 100).record) == expected

    def test_a_run_of_an_own_script_is_read_from_its_completions_alone(self, tmp_path):
        write_table(tmp_path, 3, [row(3, "5 + 7?", "12", 1.0, 0.5, 1.0)])
        run = read_run(tmp_path, 100)
        assert (run.step, len(run.completions), run.record.settings) == (0, 1, {})
        write_report(tmp_path)

    def test_of_many_completions_whole_steps_are_kept_evenly_with_the_last_one(self, tmp_path):
        for step in range(1, 11):
            write_table(tmp_path, step, [row(step, f"{step}?", "x", 0.0, 1.0, 0.0)] * 4)
        run = read_run(tmp_path, 12)
        assert run.completions["step"].tolist() == [2] * 4 + [6] * 4 + [10] * 4
        assert run.num_completions == 40
        assert "Shown are 12 of 40 completions" in " ".join(write_report(tmp_path, None, 12).read_text().split())

    def test_tables_that_repeat_a_generation_count_once_and_equal_answers_each(self, tmp_path):
        same = [row(1, "1?", "x", 0.0, 1.0, 0.0)] * 2
        write_table(tmp_path, 1, same)
        write_table(tmp_path, 2, [{**one, "step": 2} for one in same])
        write_table(tmp_path, 3, [row(3, "1?", "x", 0.0, 1.5, 0.0)])
        run = read_run(tmp_path, 100)
        assert run.completions["step"].tolist() == [1, 1, 3]
        assert run.num_completions == 3

    def test_a_table_that_was_cut_off_is_left_out(self, tmp_path, caplog):
        write_table(tmp_path, 1, [row(1, "1?", "x", 0.0, 1.0, 0.0)])
        write_table(tmp_path, 2, [row(2, "1?", "x", 0.0, 1.0, 0.0)])
        file = tmp_path / "completions" / "completions_00002.parquet"
        file.write_bytes(file.read_bytes()[:-100])
        assert read_run(tmp_path, 100).completions["step"].tolist() == [1]
        assert "completions_00002.parquet was cut off" in caplog.text

    def test_a_folder_without_a_run_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="There is no run in"):
            read_run(tmp_path, 100)
        with pytest.raises(InputError, match="which is none"):
            read_run(tmp_path / "missing", 100)


class TestPage:
    def test_every_completion_is_there_with_what_it_was_paid(self, tmp_path):
        rows = [
            row(1, "5 + 7?", "It is 12.", 1.0, 2.123456, 1.05),
            row(1, "5 + 7?", "It is 7.", 0.0, 9.0, 0.1, disagreement=True),
            row(1, "Why?", "Because.", NAN, NAN, NAN, extracted_answer=""),
        ]
        write_table(tmp_path, 1, rows)
        data = page_data(write_report(tmp_path).read_text())
        assert data["prompts"] == ["5 + 7?", "Why?"]
        assert data["prompt"] == [0, 0, 1]
        assert data["completion"] == ["It is 12.", "It is 7.", "Because."]
        assert data["verdict"] == ["right", "wrong", "not judged"]
        assert data["reason"] == ["numeric", "mismatch", "unjudgeable"]
        assert data["score"] == [2.1235, 9.0, None]
        assert data["reward"] == [1.05, 0.1, None]
        assert data["advantage"] == [0.55, -0.4, None]
        assert (data["gold"], data["answer"]) == (["12", "12", "12"], ["12", "7", ""])
        assert data["flag"] == [0, 1, 0]

    def test_what_a_model_wrote_ends_no_element(self, tmp_path):
        write_table(tmp_path, 1, [row(1, HOSTILE, HOSTILE, 0.0, 1.0, 0.0)])
        page = write_report(tmp_path).read_text()
        assert "<img" not in page
        assert page.count("</script>") == 2
        assert page_data(page)["completion"] == [HOSTILE]

    def test_the_page_names_nothing_to_load(self, tmp_path):
        write_history(tmp_path, 3)
        write_settings(tmp_path)
        page = write_report(tmp_path).read_text()
        assert set(re.findall(r"https?://[^\"'\s]*", page)) <= {
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/2000/svg",
        }
        assert "default-src 'none'" in page

    def test_settings_and_versions_are_there(self, tmp_path):
        write_settings(tmp_path)
        page = write_report(tmp_path).read_text()
        for name, value in (("hybrid_alpha", "0.1"), ("trl", "1.16.0"), ("dataset_name", "data/addition")):
            assert f"<tr><th>{name}</th><td>{value}</td></tr>" in page

    def test_curves_are_those_that_were_logged(self, tmp_path):
        history = [
            {"step": 1, "hybrid/pass_rate": 0.5, "hybrid/alarm": 0.0, "kl": None, "eval_accuracy_greedy": 0.5},
            {"step": 2, "hybrid/pass_rate": 0.5, "hybrid/alarm": 1.0, "kl": None},
        ]
        drawn = curves(history)
        assert [panel["title"] for panel in drawn] == ["Held-out accuracy", "Pass rate"]
        assert all(panel["alarm"] for panel in drawn)
        assert "var(--plot-03)" in drawn[1]["chart"]

    def test_every_chart_can_be_drawn_with_all_of_its_figures(self):
        keys = [key for panel in named_panels([]) for key, _ in panel.lines]
        drawn = curves([{"step": step, **dict.fromkeys(keys, 0.25)} for step in (1, 2)])
        assert [panel["title"] for panel in drawn] == [panel.title for panel in PANELS]
        for panel, chart in zip(PANELS, drawn, strict=True):
            colours = set(re.findall(r"var\(--plot-1\d\)", chart["chart"]))
            assert len(colours) == len(panel.lines), panel.title

    def test_every_share_that_the_verifier_logs_is_in_a_chart(self):
        logged = {}
        log_rates([Verdict(True, 1.0, "12", "exact", form="box")], logged.__setitem__)
        shares = {key for key in logged if not key.startswith("verifier/ms_")}
        assert shares <= {key for panel in PANELS for key, _ in panel.lines}

    def test_time_is_shared_out(self):
        row = {"time/generation": 2.0, "time/judging": 1.0, "time/update": 5.0}
        times = step_times([{"step": 1, **row}, {"step": 2}, {"step": 3, **row, "time/judging": 3.0}])
        # Step 3 stands for steps 2 and 3: 6 s of 28 s of writing, 7 of judging, 15 of updating.
        assert times["rows"] == [
            (0, "writing completions", "2.00 s", "21.4 %"),
            (1, "judging", "2.00 s", "25.0 %"),
            (2, "updating the policy", "5.00 s", "53.6 %"),
        ]
