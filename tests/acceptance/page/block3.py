from titan_sdk import TitanClient, TitanJob

client = TitanClient()
job_id = "flaky_training_run"

# 1. Fetch remote execution logs via Titan's protocol
logs = client.fetch_logs(job_id)

# 2. AI/Logic Evaluation
if "Segfault" in logs or "OutOfMemory" in logs:
    print(f"[ERROR] CRITICAL ERROR in {job_id}. Agent is deploying a patch...")
    
    # Programmatically create a new job to fix the issue
    fix_job = TitanJob(
        job_id=f"{job_id}_fix", 
        filename="scripts/safe_mode_patch.py",
        requirement="GENERAL"
    )
    
    # Dispatch the new task to the cluster
    client.submit_job(fix_job)
else:
    print("[SUCCESS] Run healthy. Agent sequence complete.")
